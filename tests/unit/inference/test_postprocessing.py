import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import BrokenPlugin
from u2net_platform.inference.postprocessing import (
    BYTES_PER_CLEANED_VOXEL,
    keep_largest,
    postprocess,
)

SPACING = (1.0, 1.0, 1.0)
NOWHERE = np.zeros((1, 4, 9), np.bool_)


@pytest.fixture
def plugin(tmp_path: Path) -> DomainPlugin:
    spec = DomainSpec.model_validate(
        {
            "name": "pair",
            "description": "two classes",
            "modality": "MR",
            "channels": ["T1"],
            "labels": [{"name": "left", "values": [1]}, {"name": "right", "values": [2]}],
            "postprocessing": {"keep_largest": ["right"]},
            "data": {"dataset": "made up", "licence": "CC0"},
        }
    )
    return DomainPlugin(spec, tmp_path)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((1, 4, 9), np.uint8)
    labels[0, 0, :2] = 1
    labels[0, 3, 8] = 1
    labels[0, :2, 4:6] = 2
    labels[0, 2, 6] = 2  # touches the square above by a corner
    labels[0, 3, 0] = 2
    return labels


def test_only_the_named_class_loses_its_smaller_components(plugin, labels) -> None:
    expected = labels.copy()
    expected[0, 3, 0] = 0
    np.testing.assert_array_equal(postprocess(plugin, labels, NOWHERE, SPACING), expected)


def test_a_hook_stands_in_place_of_what_the_spec_declares(plugin, labels) -> None:
    hooked = replace(plugin, postprocess=lambda volume, spacing: volume // 2)
    np.testing.assert_array_equal(postprocess(hooked, labels, None, SPACING), labels // 2)


@pytest.mark.parametrize("hook", [lambda v, s: v[:, 1:], lambda v, s: v + 5, lambda v, s: 1 / 0])
def test_a_hook_that_returns_no_labels_is_named(plugin, labels, hook) -> None:
    with pytest.raises(BrokenPlugin, match="postprocess of domain pair"):
        postprocess(replace(plugin, postprocess=hook), labels, None, SPACING)


def test_classes_chosen_for_a_version_are_cleaned_beside_those_declared(plugin, labels) -> None:
    expected = labels.copy()
    expected[0, 3, 0] = expected[0, 3, 8] = 0
    np.testing.assert_array_equal(
        postprocess(plugin, labels, NOWHERE, SPACING, ("left",)), expected
    )


def test_a_part_with_more_sure_voxels_counts_as_larger(plugin, labels) -> None:
    sure, expected = NOWHERE.copy(), labels.copy()
    sure[0, 3, 0] = True
    expected[0, :3, 4:7] = 0
    sure[0, :2, :2] = True  # of another class
    np.testing.assert_array_equal(postprocess(plugin, labels, sure, SPACING), expected)


def test_finding_parts_holds_what_is_counted_for_it() -> None:
    noise = np.random.default_rng(0).random((64, 128, 128))
    labels = (noise < 0.1).astype(np.uint8)
    tracemalloc.start()
    keep_largest(labels, noise < 0.05, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (BYTES_PER_CLEANED_VOXEL + 0.5) * labels.size
