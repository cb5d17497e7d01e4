"""How many weights a network has, counted in the paper's way and in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from u2net_platform.model.network import build_network
from u2net_platform.model.topology import LEVELS, Architecture, Topology, Unit, units


@dataclass(frozen=True)
class Counts:
    """Weights by owner.

    The paper's way counts the weights of convolutions between stem and heads. `strided` are those
    of the dense strided convolutions, which its Table 3 leaves out; they are part of
    `shared_convolutions`. `everything` counts norms, biases, stems and heads as well.
    """

    shared_convolutions: int
    strided: int
    domain_convolutions: dict[str, int]
    everything_shared: int
    everything_by_domain: dict[str, int]

    @property
    def convolutions(self) -> int:
        """Of the whole network, in the paper's way, strided ones included."""
        return self.shared_convolutions + sum(self.domain_convolutions.values())

    @property
    def everything(self) -> int:
        return self.everything_shared + sum(self.everything_by_domain.values())


def nominal_topology(in_channels: int, classes: int) -> Topology:
    """Cubic kernels and strides throughout: what the paper counts, whatever a plan says."""
    return Topology(
        in_channels=in_channels,
        classes=classes,
        kernels_zyx=((3, 3, 3),) * LEVELS,
        strides_zyx=((2, 2, 2),) * (LEVELS - 1),
    )


def count_parameters(architecture: Architecture, topologies: Mapping[str, Topology]) -> Counts:
    """Count the weights of a network that has these domains."""
    network = build_network(architecture, topologies)
    return Counts(
        shared_convolutions=_convolutions(network.backbone),
        strided=sum(
            _convolutions(network.backbone[unit.name])
            for unit in units(architecture)
            if _is_dense_strided(unit)
        ),
        domain_convolutions={
            name: _convolutions(domain.get_submodule("adapters"))
            for name, domain in network.domains.items()
        },
        everything_shared=_all(network.backbone),
        everything_by_domain={name: _all(domain) for name, domain in network.domains.items()},
    )


def _is_dense_strided(unit: Unit) -> bool:
    return unit.stride_of is not None and unit.kind == "dense"


def _convolutions(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.dim() == 5)


def _all(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
