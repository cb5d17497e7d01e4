from __future__ import annotations

from typing import Any

import pytest
import torch

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import IncompatibleParts
from u2net_platform.workflows.compatibility import misfits
from u2net_platform.workflows.versions import load_network, load_predictor

DENSE = {"name": "compact", "convolutions": "dense", "common_patch_zyx": None}


PLACE = {"centre_zyx": [0.5, 0.5, 0.5], "spread_mm": 9.0, "extent_zyx_mm": [60.0, 90.0, 90.0]}
BORDER = {
    "axis": "y", "classes": ["organ", "spleen"], "weights": [0.0] * 60, "offset": 0.5, "error": 0.1
}  # fmt: skip


def test_a_version_fits_itself(publish_bright) -> None:
    record = publish_bright()
    assert misfits(record, record, "bright:1") == []


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("plan", {"strides_zyx": [[1, 1, 1]] * 5}, "strides: the network has"),
        ("plan", {"kernels_zyx": [[1, 3, 3]] * 6}, "kernels: the network has"),
        ("plan", {"patch_zyx": [4096] * 3}, "voxels of the patch"),
        ("plan", {"keep_largest": ["spleen"]}, "the plan speaks of "),
        ("plan", {"places": {"spleen": PLACE}}, "the plan speaks of "),
        ("plan", {"places": {"organ": PLACE | {"spread_mm": 0}}}, "places.organ.spread_mm"),
        ("plan", {"places": {"organ": PLACE | {"centre_zyx": [9, 0, 0]}}}, "places.organ.centre"),
        ("plan", {"border": BORDER}, "the plan has one between organ and spleen, the spec has not"),
        ("plan", {"border": BORDER | {"axis": "w"}}, "border.axis"),
        ("spec", {"channels": ["T1", "T2"]}, "channels: the network has 1, the spec 2"),
        ("spec", {"name": "heart"}, "the weights are bright's, the spec is heart's"),
        ("architecture", {"classes": 7}, "classes: the network has 7, the spec 2"),
        ("architecture", {"classes": 0}, "topology cannot be read"),
    ],
)
def test_each_pair_of_parts_that_does_not_fit_is_told(
    settings, publish_bright, part: str, change: dict[str, Any], reason: str
) -> None:
    record = publish_bright()
    spoilt = record.model_copy(update={part: getattr(record, part) | change})
    (found,) = misfits(spoilt, spoilt, "bright:1")
    assert reason in found
    with pytest.raises(IncompatibleParts, match=reason):
        load_network(WeightStore(settings.weights_dir), spoilt)


def test_a_version_that_was_published_with_another_plan_is_not_loaded(
    settings, publish_bright, bright_predictor
) -> None:
    plan = bright_predictor.plan.model_dump(mode="json") | {"strides_zyx": [[1, 1, 1]] * 5}
    publish_bright(plan=plan)
    with pytest.raises(IncompatibleParts, match="strides"):
        load_predictor(settings, "bright", torch.device("cpu"))


def test_a_domain_does_not_fit_a_backbone_of_another_shape_or_of_other_weights(
    publish_bright,
) -> None:
    record = publish_bright()
    other = record.model_copy(update={"backbone_digest": "f" * 64, "backbone_architecture": DENSE})
    shape, weights = misfits(record, other, "bright:1")
    assert "separable convolutions, the backbone is compact with dense" in shape
    assert "ffffffffffff" in weights
