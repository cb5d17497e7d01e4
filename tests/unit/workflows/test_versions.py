from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import DigestMismatch, IncompatibleParts, UnknownRecord
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.workflows.versions import load_predictor, parse_reference

CPU = torch.device("cpu")
DOMAIN = """
name = "bright"
description = "whatever is bright"
modality = "MR"
channels = ["T1"]
labels = [{ name = "organ", values = [1] }]
data = { dataset = "made up", licence = "CC0" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bright").mkdir()
    (tmp_path / "bright" / "domain.toml").write_text(DOMAIN)
    return tmp_path / "bright"


@pytest.fixture
def network(bright_predictor) -> UniversalUNet:
    plan = bright_predictor.plan
    topology = Topology(
        in_channels=1, classes=2, kernels_zyx=plan.kernels_zyx, strides_zyx=plan.strides_zyx
    )
    return build_network(Architecture(), {"bright": topology}, seed=3)


@pytest.fixture
def publish(settings, folder, network, bright_predictor):
    """Publish what lies in the plugin's folder, with the network's weights, as the next version."""

    def publish(**changed: str) -> DomainPlugin:
        plugin, catalog = DomainPlugin.load(folder), Catalog.open(settings.database_url)
        spec = plugin.spec.model_dump(mode="json")
        catalog.domains.add(spec, "bright", plugin.digest, str(folder))
        catalog.runs.create(
            RunRecord(
                id=plugin.digest, kind="train", mode="joint", domains=("bright",), recipe={},
                seed=0, fold=0, device="cpu", directory="r",
            )
        )  # fmt: skip
        store = WeightStore(settings.weights_dir)
        topology = network.domains["bright"].topology.model_dump(mode="json")
        made = {
            "domain": "bright",
            "backbone_digest": store.put(network.owner_state("backbone")),
            "backbone_architecture": network.architecture.model_dump(mode="json"),
            "domain_digest": store.put(network.owner_state("bright")),
            "spec": spec,
            "plugin_digest": plugin.digest,
            "plan": bright_predictor.plan.model_dump(mode="json"),
            "run_id": plugin.digest,
            "architecture": topology,
        }
        catalog.versions.publish(NewVersion.model_validate(made | changed))
        return plugin

    return publish


@pytest.mark.parametrize(
    ("text", "expected"), [("heart", ("heart", None)), ("left-lung_2:13", ("left-lung_2", 13))]
)
def test_a_reference_is_a_name_and_perhaps_a_number(text, expected) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize("text", ["", "heart:", "heart:0", "heart:x", "heart:1:2", "../heart"])
def test_what_names_no_version_is_refused(text) -> None:
    with pytest.raises(UnknownRecord, match="names no version"):
        parse_reference(text)


def test_a_version_predicts_what_the_network_it_was_published_from_did(
    settings, publish, network, bright_predictor
) -> None:
    publish()
    loaded = load_predictor(settings, "bright", CPU)
    assert loaded.record.reference == "bright:1"
    assert loaded.plan == bright_predictor.plan
    patch = torch.rand(1, 1, 8, 8, 8)
    found, expected = (net(patch, domain="bright") for net in (loaded.predictor.network, network))
    assert torch.equal(found, expected)


def test_the_spec_is_the_versions_own_and_not_the_one_on_disk(settings, publish, folder) -> None:
    publish()
    (folder / "domain.toml").write_text(DOMAIN.replace("organ", "other"))
    assert load_predictor(settings, "bright:1", CPU).plugin.spec.class_names == ("organ",)


def test_hooks_are_taken_from_disk_where_the_code_is_still_the_same(
    settings, publish, folder
) -> None:
    (folder / "plugin.py").write_text("def postprocess(labels, spacing_zyx_mm): return labels")
    publish()
    (folder / "domain.toml").write_text(DOMAIN.replace("organ", "other"))
    plugin = load_predictor(settings, "bright:1", CPU).plugin
    assert plugin.postprocess is not None
    assert plugin.spec.class_names == ("organ",)


@pytest.mark.parametrize("new_code", ["def postprocess(labels, spacing_zyx_mm): return 0", None])
def test_code_that_has_changed_or_gone_is_refused(settings, publish, folder, new_code) -> None:
    (folder / "plugin.py").write_text("def postprocess(labels, spacing_zyx_mm): return labels")
    publish()
    if new_code:
        (folder / "plugin.py").write_text(new_code)
    else:
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(IncompatibleParts, match="bright:1"):
        load_predictor(settings, "bright:1", CPU)


def test_altered_weights_are_refused(settings, publish) -> None:
    publish()
    for path in settings.weights_dir.iterdir():
        path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with pytest.raises(DigestMismatch):
        load_predictor(settings, "bright", CPU)


def test_weights_of_another_shape_are_refused(settings, publish, network) -> None:
    store = WeightStore(settings.weights_dir)
    publish(domain_digest=store.put(network.owner_state("backbone")))
    with pytest.raises(IncompatibleParts, match="bright"):
        load_predictor(settings, "bright", CPU)
