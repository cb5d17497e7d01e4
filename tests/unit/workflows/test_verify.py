from __future__ import annotations

import pytest

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.model.network import build_network
from u2net_platform.model.partition import train_only
from u2net_platform.model.topology import Architecture
from u2net_platform.workflows.verify import prove, take_probe, verify


@pytest.mark.parametrize("convolutions", ["separable", "dense"])
def test_a_version_that_was_trained_on_a_frozen_backbone_gives_what_it_gave_then(
    settings, bright_network, convolutions: str
) -> None:
    topology = bright_network.topology("bright")
    topology = topology.model_copy(update={"strides_zyx": ((2, 2, 2),) * 4 + ((1, 1, 1),)})
    architecture = Architecture(convolutions=convolutions)
    network = build_network(architecture, {"bright": topology}, seed=3)
    train_only(network, {"bright"})
    frozen = {name for name, one in network.named_parameters() if not one.requires_grad}
    store = WeightStore(settings.weights_dir)
    probe = take_probe(network, "bright", store)
    assert frozen == {name for name, one in network.named_parameters() if not one.requires_grad}
    again = build_network(architecture, {"bright": topology}, seed=3)
    output, _ = prove(again, "bright", probe, store.get(probe["input"])["image"])
    assert output == "same"


def test_what_this_program_computed_otherwise_before_is_no_fault(
    settings, bright_network, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WeightStore(settings.weights_dir)
    probe = take_probe(bright_network, "bright", store)
    image = store.get(probe["input"])["image"]
    monkeypatch.setattr("u2net_platform.workflows.verify.ARITHMETIC", "another")
    assert prove(bright_network, "bright", probe | {"output": "0" * 64}, image)[0] == (
        "other machine"
    )


def test_a_file_that_cannot_be_read_is_a_fault_of_its_version_alone(
    settings, publish_bright
) -> None:
    store = WeightStore(settings.weights_dir)
    unreadable, sound = publish_bright(domain_digest="f" * 64), publish_bright()
    store.path("f" * 64).mkdir()  # as a disk that fails, or another user's file
    found = verify(store, [unreadable, sound], lambda _: None)
    assert [one.fault is None for one in found] == [False, True]
    assert "cannot be read: Is a directory" in (found[0].fault or "")
