"""The universal network. Whose a weight is shows in its name: `backbone.*`, `domains.<name>.*`.

A separable unit is, in this order: the domain's channel-wise convolution, the domain's norm,
LeakyReLU, the backbone's pointwise convolution, the domain's norm, LeakyReLU (paper, Fig. 1). The
architecture `lean` leaves the first norm and LeakyReLU away.
Convolutions before a norm have no bias: the norm would remove it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from textwrap import shorten

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2net_platform.errors import IncompatibleParts
from u2net_platform.model.channelwise import Triple, channelwise_conv3d
from u2net_platform.model.device import laid_out
from u2net_platform.model.norm import SLOPE, NormActivation
from u2net_platform.model.partition import BACKBONE, owned_by
from u2net_platform.model.topology import LEVELS, Architecture, Topology, Unit, units

HEAD_GAIN = 0.1
SUPERVISED_LEVELS = (0, 1, 2)  # 0 is the output; paper-like deep supervision adds the other two


class Convolution(nn.Module):
    """The weight of a convolution: c_out c_in/groups kz ky kx, and perhaps a bias."""

    def __init__(self, c_out: int, c_in: int, kernel_zyx: Triple, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, *kernel_zyx))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    def forward(self, x: Tensor, stride_zyx: Triple = (1, 1, 1)) -> Tensor:
        pointwise = self.weight[0, 0].numel() == 1 and stride_zyx == (1, 1, 1)
        if pointwise and x.device.type == "cpu":
            # With one thread, or for one small volume, torch's kernel leaves channels-last.
            product = F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias)
            return product.movedim(-1, 1)
        padding = [side // 2 for side in self.weight.shape[2:]]
        return F.conv3d(x, self.weight, self.bias, stride=stride_zyx, padding=padding)


class Adapter(nn.Module):
    """A domain's half of one separable unit."""

    def __init__(self, unit: Unit, kernel_zyx: Triple, lean: bool) -> None:
        super().__init__()
        self.spatial = Convolution(unit.c_in, 1, kernel_zyx)
        self.norm_in = nn.Identity() if lean else NormActivation(unit.c_in)
        self.norm_out = NormActivation(unit.c_out)

    def forward(self, x: Tensor, pointwise: nn.Module, stride_zyx: Triple) -> Tensor:
        x = self.norm_in(channelwise_conv3d(x, self.spatial.weight, stride_zyx))
        return _checked(self.norm_out(pointwise(x)))


class DenseShared(nn.Module):
    """A dense unit that is the backbone's alone, its norm included."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        side = 1 if unit.kind == "point" else 3
        self.convolution = Convolution(unit.c_out, unit.c_in, (side, side, side))
        self.norm = NormActivation(unit.c_out)

    def forward(self, x: Tensor, stride_zyx: Triple) -> Tensor:
        return _checked(self.norm(self.convolution(x, stride_zyx)))


class Backbone(nn.ModuleDict):
    """Everything that all domains share: one entry a unit."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        for unit in units(architecture):
            self[unit.name] = _shared_half(unit, architecture)


def _shared_half(unit: Unit, architecture: Architecture) -> nn.Module:
    if unit.kind == "separable":
        return Convolution(unit.c_out, unit.c_in, (1, 1, 1))
    if architecture.convolutions == "dense":
        return DenseShared(unit)
    return Convolution(unit.c_out, unit.c_in, (3, 3, 3))


class Domain(nn.Module):
    """Everything that one domain owns: stem, adapters, norms, heads."""

    def __init__(self, architecture: Architecture, topology: Topology) -> None:
        super().__init__()
        self.topology = topology
        channels = architecture.channels
        self.stem = Convolution(channels[0], topology.in_channels, topology.kernels_zyx[0])
        self.stem_norm = NormActivation(channels[0])
        self.adapters = nn.ModuleDict()
        if architecture.convolutions == "separable":
            for unit in units(architecture):
                self.adapters[unit.name] = _domain_half(unit, topology, architecture)
        self.heads = nn.ModuleList(
            Convolution(topology.classes, channels[level], (1, 1, 1), bias=True)
            for level in SUPERVISED_LEVELS
        )

    def stride_zyx(self, unit: Unit) -> Triple:
        return (1, 1, 1) if unit.stride_of is None else self.topology.strides_zyx[unit.stride_of]


def _domain_half(unit: Unit, topology: Topology, architecture: Architecture) -> nn.Module:
    if unit.kind == "separable":
        return Adapter(unit, topology.kernels_zyx[unit.level], architecture.name == "lean")
    return NormActivation(unit.c_out)


class UniversalUNet(nn.Module):
    """One network for many domains.

    Calling it: `network(x, domain="heart")`, x is b c z y x with the domain's channels; the result
    is the logits, b k z y x, with the domain's classes and the shape of x.

    Source: paper, section 2.3.
    """

    def __init__(self, architecture: Architecture, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        self.seed = seed
        self.units = {unit.name: unit for unit in units(architecture)}
        self.backbone = Backbone(architecture)
        self.domains = nn.ModuleDict()
        _initialise(self.backbone, seed, BACKBONE)

    def add_domain(self, name: str, topology: Topology) -> None:
        """Give the network a new domain.

        Its first weights depend on seed and name alone, not on which domains came before it.
        """
        domain = Domain(self.architecture, topology)
        _initialise(domain, self.seed, name)
        reference = next(self.backbone.parameters())
        self.domains[name] = domain.to(reference.device)

    def topology(self, name: str) -> Topology:
        """The shape of a domain's part."""
        return self._domain(name).topology

    def load_owner(self, owner: str, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights of `backbone` or of a domain, named as in `partition.owned_by`.

        Raises:
            IncompatibleParts: a weight is missing, left over or of another shape.
        """
        part = self.backbone if owner == BACKBONE else self.domains[owner]
        try:
            part.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise IncompatibleParts(
                f"The weights of {owner} do not fit this network: {shorten(str(error), 300)}",
                "Use the backbone and the architecture that the domain was trained on.",
            ) from error

    def start_from(self, name: str, tensors: Mapping[str, Tensor], heads: bool) -> list[str]:
        """Let a domain begin with another one's weights, where names and shapes agree.

        heads: also the output layers, which belong to the same classes only if it is the same
            domain. Returns the names of those that were wanted and did not fit.
        """
        part = self.domains[name]
        own = part.state_dict()
        wanted = [key for key in own if heads or not key.startswith("heads.")]
        fitting = [key for key in wanted if key in tensors and own[key].shape == tensors[key].shape]
        part.load_state_dict({**own, **{key: tensors[key] for key in fitting}})
        return [key for key in wanted if key not in fitting]

    def owner_state(self, owner: str) -> dict[str, Tensor]:
        """The weights of `backbone` or of a domain."""
        return owned_by(self.state_dict(), owner)

    def forward(self, x: Tensor, *, domain: str) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"expected b c z y x, got {tuple(x.shape)}")
        shape_zyx = x.shape[2:]
        common = self.architecture.common_patch_zyx
        if common is not None and tuple(shape_zyx) != common:
            x = F.interpolate(x, size=common, mode="trilinear", align_corners=False)
        logits = self._logits(x, self._domain(domain))
        if logits.shape[2:] != shape_zyx:
            logits = F.interpolate(logits, size=shape_zyx, mode="trilinear", align_corners=False)
        return logits

    def _domain(self, name: str) -> Domain:
        domain = self.domains[name]
        assert isinstance(domain, Domain)
        return domain

    def _logits(self, x: Tensor, domain: Domain) -> Tensor:
        # One channel lies the same in both layouts, and the wrong one would spread from there.
        x = domain.stem_norm(laid_out(domain.stem(x)))
        skips = []
        for level in range(LEVELS):
            inner = self._unit(f"encoder{level}_a", x, domain)
            x = x + self._unit(f"encoder{level}_b", inner, domain)
            if level < LEVELS - 1:
                skips.append(x)
                x = self._unit(f"down{level}", x, domain)
        return self._decode(x, skips, domain)

    def _unit(self, name: str, x: Tensor, domain: Domain) -> Tensor:
        unit = self.units[name]
        shared = self.backbone[unit.name]
        stride = domain.stride_zyx(unit)
        if self.architecture.convolutions == "dense":
            return _checked(shared(x, stride))
        own = domain.adapters[unit.name]
        if isinstance(own, Adapter):
            return _checked(own(x, shared, stride))
        return _checked(own(shared(x, stride)))

    def _decode(self, x: Tensor, skips: list[Tensor], domain: Domain) -> Tensor:
        logits: Tensor | None = None
        for level in reversed(range(LEVELS - 1)):
            x = self._enlarged(x, skips[level], level, domain)
            x = self._unit(f"merge{level}", torch.cat([x, skips[level]], dim=1), domain)
            x = x + self._unit(f"refine{level}", x, domain)
            if level in SUPERVISED_LEVELS:
                own = domain.heads[SUPERVISED_LEVELS.index(level)](x)
                logits = (
                    own
                    if logits is None
                    else own + _enlarge(logits, own, domain.topology.strides_zyx[level])
                )
        assert logits is not None
        if logits.requires_grad:  # losses may give it another layout, which would spread from there
            logits.register_hook(laid_out)  # type: ignore[no-untyped-call]
        return logits

    def _enlarged(self, x: Tensor, skip: Tensor, level: int, domain: Domain) -> Tensor:
        stride = domain.topology.strides_zyx[level]
        if self.architecture.name == "lean":  # the convolution has an eighth of the voxels
            return _enlarge(self._unit(f"up{level}", x, domain), skip, stride)
        return self._unit(f"up{level}", _enlarge(x, skip, stride), domain)


def _enlarge(x: Tensor, like: Tensor, stride_zyx: Triple) -> Tensor:
    """Nearest up-sampling by the stride, cut to a finer volume whose sides may be odd."""
    if stride_zyx == (1, 1, 1):
        return x
    scale = [float(side) for side in stride_zyx]
    with torch.autocast(x.device.type, enabled=False):  # copies, which need not be float32
        x = F.interpolate(x, scale_factor=scale, mode="nearest")
    z, y, w = like.shape[2:]
    # A cut costs a copy of its gradient, in the default layout.
    return x if x.shape[2:] == like.shape[2:] else x[:, :, :z, :y, :w]


def _checked(x: object) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def _initialise(module: nn.Module, seed: int, owner: str) -> None:
    """Kaiming-normal weights for LeakyReLU, from a generator that seed and owner alone decide."""
    number = int.from_bytes(hashlib.sha256(f"{seed}/{owner}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(number)
    for part in module.modules():
        if isinstance(part, Convolution):
            # Heads, which alone have a bias, start with logits near zero: no class is preferred.
            gain = math.sqrt(2.0 / (1 + SLOPE**2)) if part.bias is None else HEAD_GAIN
            deviation = gain / math.sqrt(part.weight[0].numel())
            with torch.no_grad():
                part.weight.normal_(0.0, deviation, generator=generator)


def build_network(
    architecture: Architecture, topologies: Mapping[str, Topology], seed: int = 0
) -> UniversalUNet:
    """A network with these domains."""
    network = UniversalUNet(architecture, seed)
    for name, topology in topologies.items():
        network.add_domain(name, topology)
    return network
