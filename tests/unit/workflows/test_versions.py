from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import DigestMismatch, IncompatibleParts
from u2net_platform.workflows.versions import load_predictor

CPU = torch.device("cpu")


def rename_organ(folder: Path) -> None:
    spec = folder / "domain.toml"
    spec.write_text(spec.read_text().replace("organ", "other"))


def test_a_version_predicts_what_the_network_it_was_published_from_did(
    settings, publish_bright, bright_network, bright_predictor
) -> None:
    publish_bright()
    loaded = load_predictor(settings, "bright", CPU)
    assert loaded.record.reference == "bright:1"
    assert loaded.plan == bright_predictor.plan
    patch = torch.rand(1, 1, 16, 16, 16)
    found, expected = (
        net(patch, domain="bright") for net in (loaded.predictor.network, bright_network)
    )
    assert torch.equal(found, expected)


def test_the_spec_is_the_versions_own_and_not_the_one_on_disk(
    settings, publish_bright, bright_folder
) -> None:
    publish_bright()
    rename_organ(bright_folder)
    assert load_predictor(settings, "bright:1", CPU).plugin.spec.class_names == ("organ",)


def test_hooks_are_taken_from_disk_where_the_code_is_still_the_same(
    settings, publish_bright, bright_folder
) -> None:
    (bright_folder / "plugin.py").write_text(
        "def postprocess(labels, spacing_zyx_mm): return labels"
    )
    publish_bright()
    rename_organ(bright_folder)
    plugin = load_predictor(settings, "bright:1", CPU).plugin
    assert plugin.postprocess is not None
    assert plugin.spec.class_names == ("organ",)


@pytest.mark.parametrize("new_code", ["def postprocess(labels, spacing_zyx_mm): return 0", None])
def test_code_that_has_changed_or_gone_is_refused(
    settings, publish_bright, bright_folder, new_code
) -> None:
    (bright_folder / "plugin.py").write_text(
        "def postprocess(labels, spacing_zyx_mm): return labels"
    )
    publish_bright()
    if new_code:
        (bright_folder / "plugin.py").write_text(new_code)
    else:
        for path in bright_folder.iterdir():
            path.unlink()
    with pytest.raises(IncompatibleParts, match="bright:1"):
        load_predictor(settings, "bright:1", CPU)


def test_altered_weights_are_refused(settings, publish_bright) -> None:
    publish_bright()
    for path in settings.weights_dir.iterdir():
        path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with pytest.raises(DigestMismatch):
        load_predictor(settings, "bright", CPU)


def test_weights_of_another_shape_are_refused(settings, publish_bright, bright_network) -> None:
    store = WeightStore(settings.weights_dir)
    publish_bright(domain_digest=store.put(bright_network.owner_state("backbone")))
    with pytest.raises(IncompatibleParts, match="bright"):
        load_predictor(settings, "bright", CPU)
