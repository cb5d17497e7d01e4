"""Sizes, ownership and shapes of the universal network."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from u2net_platform.domains.spec import NAME_PATTERN, RESERVED_NAMES
from u2net_platform.errors import IncompatibleParts
from u2net_platform.model.losses import dice_cross_entropy
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.norm import NormActivation
from u2net_platform.model.partition import BACKBONE, tensors_digest, train_only
from u2net_platform.model.topology import Architecture, Topology

FIVE = ("heart", "hippocampus", "liver", "prostate", "pancreas")
PAPER = Architecture(name="paper", common_patch_zyx=(128, 128, 128))
COMPACT = Architecture(name="compact")


def weights_of_convolutions(network: UniversalUNet, *parts: str) -> int:
    """As the paper counts: without stems, heads, norms and biases."""
    return sum(
        tensor.numel()
        for name, tensor in network.state_dict().items()
        if tensor.dim() == 5
        and not {"stem", "heads"} & set(name.split("."))
        and any(part in name for part in parts)
    )


def in_all(names: tuple[str, ...], topology: Topology) -> dict[str, Topology]:
    return dict.fromkeys(names, topology)


@pytest.mark.parametrize("order", [FIVE, FIVE[::-1], FIVE[2:] + FIVE[:2]])
def test_the_universal_network_has_as_many_weights_as_the_paper_says(
    order: tuple[str, ...], isotropic: Topology
) -> None:
    network = build_network(PAPER, in_all(order, isotropic))
    strided = weights_of_convolutions(network, ".down")
    assert strided == 4_713_984
    assert weights_of_convolutions(network, "backbone.") - strided == 1_135_360
    for name in FIVE:
        assert weights_of_convolutions(network, f"domains.{name}.") == 121_392
    assert weights_of_convolutions(network, "") - strided == 1_742_320


def test_the_dense_network_has_as_many_weights_as_the_paper_s_basic_one(
    isotropic: Topology,
) -> None:
    dense = PAPER.model_copy(update={"convolutions": "dense"})
    network = build_network(dense, {"heart": isotropic})
    assert weights_of_convolutions(network, "") == 33_099_008
    assert weights_of_convolutions(network, "domains.") == 0


@pytest.mark.parametrize("order", [FIVE, FIVE[::-1]])
@pytest.mark.parametrize("architecture", [Architecture(), COMPACT])
def test_a_small_network_with_all_its_weights_is_smaller_than_the_paper_s_without_some(
    order: tuple[str, ...], architecture: Architecture, isotropic: Topology
) -> None:
    network = build_network(architecture, in_all(order, isotropic))
    for name in FIVE:
        assert weights_of_convolutions(network, f"domains.{name}.") == 119_232
    assert weights_of_convolutions(network, "") == 1_488_320


def test_the_documented_totals_of_a_backbone_and_a_domain_are_true(isotropic: Topology) -> None:
    for architecture, backbone, domain in (
        (Architecture(), 892_160, 127_766),
        (COMPACT, 892_160, 136_598),
        (PAPER, 5_849_344, 140_070),
    ):
        network = build_network(architecture, {"heart": isotropic})
        assert sum(p.numel() for p in network.backbone.parameters()) == backbone
        assert sum(p.numel() for p in network.domains.parameters()) == domain


def test_the_weights_of_a_domain_do_not_depend_on_the_others(
    shallow: Topology, thin: Topology
) -> None:
    topologies = {"a": shallow, "b": thin, "c": shallow}
    digests = set()
    for order in permutations(topologies):
        network = build_network(Architecture(), {name: topologies[name] for name in order}, seed=5)
        digests.add(tuple(tensors_digest(network.owner_state(o)) for o in ("a", "b", "backbone")))
    alone = build_network(Architecture(), {"a": shallow}, seed=5)
    assert {found[0] for found in digests} == {tensors_digest(alone.owner_state("a"))}
    assert len(digests) == 1


def test_domains_of_one_topology_and_other_seeds_begin_differently(shallow: Topology) -> None:
    def digest(seed: int, name: str) -> str:
        network = build_network(Architecture(), {name: shallow}, seed)
        return tensors_digest(network.owner_state(name))

    assert len({digest(0, "a"), digest(0, "b"), digest(1, "a")}) == 3


@pytest.mark.parametrize("convolutions", ["separable", "dense"])
def test_the_name_of_every_weight_says_whose_it_is(
    convolutions: str, shallow: Topology, thin: Topology
) -> None:
    architecture = Architecture.model_validate({"convolutions": convolutions})
    network = build_network(architecture, {"a": shallow, "b": thin})
    state = network.state_dict()
    prefixes = ("backbone.", "domains.a.", "domains.b.")
    assert all(name.startswith(prefixes) for name in state)
    parts = [len(network.owner_state(owner)) for owner in ("backbone", "a", "b")]
    assert min(parts) > 0
    assert sum(parts) == len(state)


def test_a_step_leaves_absent_domains_as_they_are_bit_for_bit(
    shallow: Topology, thin: Topology
) -> None:
    network = build_network(Architecture(), {"a": shallow, "b": thin})
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    digests = []
    for _ in range(2):  # in the second step b has momentum
        digests.append({o: tensors_digest(network.owner_state(o)) for o in ("a", "b", "backbone")})
        for domain in ("b", "a"):
            absent = {"a": "b", "b": "a"}[domain]
            before = tensors_digest(network.owner_state(absent))
            optimiser.zero_grad(set_to_none=True)
            channels = network.domains[domain].topology.in_channels
            x = torch.randn(1, channels, 8, 16, 16)
            dice_cross_entropy(network(x, domain=domain), x[:, 0] > 0).backward()
            own = [*network.backbone.parameters(), *network.domains[domain].parameters()]
            assert all(p.grad is not None for p in own)
            assert all(p.grad is None for p in network.domains[absent].parameters())
            optimiser.step()
            assert tensors_digest(network.owner_state(absent)) == before
    assert all(digests[0][owner] != digests[1][owner] for owner in digests[0])


def test_only_the_owners_weights_are_handed_to_an_optimiser(shallow: Topology) -> None:
    network = build_network(Architecture(), {"a": shallow, "b": shallow})
    names = {name for name, _ in train_only(network, {"a"})}
    assert names == {f"domains.a.{name}" for name in network.owner_state("a")}
    assert {name for name, p in network.named_parameters() if p.requires_grad} == names


@pytest.mark.parametrize("shape", [(8, 16, 16), (5, 9, 7), (3, 17, 11), (1, 8, 13)])
@pytest.mark.parametrize("convolutions", ["separable", "dense"])
@pytest.mark.parametrize("kind", ["shallow", "thin"])
def test_the_logits_have_the_shape_of_the_image_and_the_classes_of_the_domain(
    kind: str, convolutions: str, shape: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    topology: Topology = request.getfixturevalue(kind)
    architecture = Architecture.model_validate({"convolutions": convolutions})
    network = build_network(architecture, {"a": topology})
    logits = network(torch.randn(2, topology.in_channels, *shape), domain="a")
    assert logits.shape == (2, topology.classes, *shape)
    assert logits.isfinite().all()


def test_one_network_serves_domains_of_different_channels_and_classes(
    shallow: Topology, thin: Topology
) -> None:
    network = build_network(Architecture(), {"a": shallow, "b": thin})
    with torch.no_grad():
        assert network(torch.randn(1, 1, 8, 16, 16), domain="a").shape[1] == 2
        assert network(torch.randn(1, 2, 8, 16, 16), domain="b").shape[1] == 3


def test_an_image_without_a_batch_is_refused(shallow: Topology) -> None:
    network = build_network(Architecture(), {"a": shallow})
    with pytest.raises(ValueError, match="b c z y x"):
        network(torch.randn(1, 8, 16, 16), domain="a")


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("convolutions", "batch", "threads"),
    [("separable", 2, 1), ("separable", 2, 2), ("separable", 1, 2), ("dense", 2, 2)],
)
def test_every_volume_between_stem_and_heads_lies_channels_last(
    convolutions: str, batch: int, threads: int, thin: Topology
) -> None:
    # Also backwards: one tensor in the default layout would slow down all that comes after it.
    torch.set_num_threads(threads)
    network = build_network(
        Architecture.model_validate({"convolutions": convolutions}), {"a": thin}
    )
    wrong, seen = [], set()

    def look(name: str, x: Tensor) -> None:
        seen.add(name)
        if not x.is_contiguous(memory_format=torch.channels_last_3d):
            wrong.append(name)

    def watch(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
            look(f"{name} input", inputs[0])
            look(name, result)
            inputs[0].register_hook(lambda gradient: look(f"{name} gradient", gradient))

        return hook

    for name, module in network.named_modules():
        if isinstance(module, NormActivation):
            module.register_forward_hook(watch(name))  # type: ignore[arg-type]
    logits = network(torch.randn(batch, 2, 8, 16, 16), domain="a")
    logits.square().mean().backward()
    assert len(seen) > 60
    assert wrong == []


def test_a_lean_network_enlarges_after_the_convolution_and_norms_once(shallow: Topology) -> None:
    seen = {}
    for architecture in (Architecture(), COMPACT):
        network = build_network(architecture, {"a": shallow})
        up = network.domains["a"].adapters["up0"]
        up.register_forward_pre_hook(
            lambda _, inputs, name=architecture.name: seen.update({name: inputs[0].shape[2:]})
        )
        with torch.no_grad():
            network(torch.randn(1, 1, 8, 16, 16), domain="a")
        norms = {name for name, part in up.named_modules() if isinstance(part, NormActivation)}
        assert norms == {"norm_out"} | ({"norm_in"} if architecture == COMPACT else set())
    assert seen["compact"] == (8, 16, 16)
    assert seen["lean"].numel() < seen["compact"].numel()


def test_the_paper_s_network_sees_one_size_and_gives_back_the_image_s(shallow: Topology) -> None:
    architecture = Architecture(name="paper", common_patch_zyx=(8, 16, 16))
    network = build_network(architecture, {"a": shallow})
    seen = []
    network.domains["a"].stem.register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].shape))
    )
    with torch.no_grad():
        for shape in ((6, 21, 13), (8, 16, 16)):
            assert network(torch.randn(1, 1, *shape), domain="a").shape == (1, 2, *shape)
    assert seen == [(1, 1, 8, 16, 16)] * 2


def test_the_paper_s_network_keeps_what_is_where(shallow: Topology) -> None:
    # Resizing must not shift: a network that only passes its input on returns it smoothed in place.
    architecture = Architecture(name="paper", common_patch_zyx=(8, 16, 16))
    network = build_network(architecture, {"a": shallow})
    network._logits = lambda x, domain: torch.cat([x, -x], dim=1)  # type: ignore[method-assign]
    ramp = torch.arange(24.0).expand(1, 1, 12, 20, 24)
    logits = network(ramp, domain="a")
    assert torch.allclose(logits[0, 0, :, :, 2:-2], ramp[0, 0, :, :, 2:-2], atol=0.05)


def test_a_name_that_the_network_could_not_give_to_a_domain_is_reserved() -> None:
    taken = {name for name in dir(nn.ModuleDict()) if re.fullmatch(NAME_PATTERN, name)}
    assert taken | {BACKBONE} <= RESERVED_NAMES


def test_weights_that_do_not_fit_are_refused(shallow: Topology, thin: Topology) -> None:
    network = build_network(Architecture(), {"a": shallow, "b": thin})
    for owner, other in (("a", "b"), ("b", "backbone"), ("backbone", "a")):
        with pytest.raises(IncompatibleParts, match=owner):
            network.load_owner(owner, network.owner_state(other))
    incomplete = network.owner_state("a")
    incomplete.popitem()
    with pytest.raises(IncompatibleParts, match="Missing key"):
        network.load_owner("a", incomplete)


def test_weights_that_were_stored_come_back_for_their_owner_alone(shallow: Topology) -> None:
    first = build_network(Architecture(), {"a": shallow, "b": shallow}, seed=1)
    second = build_network(Architecture(), {"a": shallow, "b": shallow}, seed=2)
    before = tensors_digest(second.owner_state("b"))
    for owner in ("a", "backbone"):
        second.load_owner(owner, first.owner_state(owner))
        assert tensors_digest(second.owner_state(owner)) == tensors_digest(first.owner_state(owner))
    assert tensors_digest(second.owner_state("b")) == before


def test_what_does_not_fit_when_a_domain_begins_with_another_s_weights_is_named(
    isotropic: Topology,
) -> None:
    before = build_network(COMPACT, {"heart": isotropic})
    tensors = before.owner_state("heart")
    more = isotropic.model_copy(update={"classes": isotropic.classes + 1})
    network = build_network(COMPACT, {"heart": more}, seed=1)
    anew = network.start_from("heart", tensors, heads=True)
    assert anew and all(name.startswith("heads.") for name in anew)
    assert network.start_from("heart", tensors, heads=False) == []
    own = network.owner_state("heart")
    assert all(torch.equal(own[name], tensors[name]) == (name not in anew) for name in own)
