import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from u2net_platform.data.borders import POINTS, Border
from u2net_platform.data.places import Expected
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import BrokenPlugin
from u2net_platform.inference.postprocessing import (
    BYTES_PER_CLEANED_VOXEL,
    keep_largest,
    postprocess,
)

SPACING = (1.0, 1.0, 1.0)


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
    np.testing.assert_array_equal(postprocess(plugin, labels, SPACING), expected)


def test_a_hook_stands_in_place_of_what_the_spec_declares(plugin, labels) -> None:
    hooked = replace(plugin, postprocess=lambda volume, spacing: volume // 2)
    np.testing.assert_array_equal(postprocess(hooked, labels, SPACING), labels // 2)


def test_what_a_hook_prints_is_no_data_of_a_command(plugin, labels, capsys) -> None:
    def hook(volume, spacing):
        print("hello")  # noqa: T201
        return volume

    postprocess(replace(plugin, postprocess=hook), labels, SPACING)
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("hook", [lambda v, s: v[:, 1:], lambda v, s: v + 5, lambda v, s: 1 / 0])
def test_a_hook_that_returns_no_labels_is_named(plugin, labels, hook) -> None:
    with pytest.raises(BrokenPlugin, match="postprocess of domain pair"):
        postprocess(replace(plugin, postprocess=hook), labels, SPACING)


def test_classes_chosen_for_a_version_are_cleaned_beside_those_declared(plugin, labels) -> None:
    expected = labels.copy()
    expected[0, 3, 0] = expected[0, 3, 8] = 0
    np.testing.assert_array_equal(postprocess(plugin, labels, SPACING, ("left",)), expected)


@pytest.mark.parametrize(("spread", "kept_is_nearest"), [(1.0, True), (20.0, False)])
def test_what_lies_far_from_where_it_is_expected_counts_as_smaller(
    plugin, labels, spread: float, kept_is_nearest: bool
) -> None:
    """The parts of class 2 have 5 voxels, 5.6 from the place, and one voxel, in it."""
    expected = labels.copy()
    if kept_is_nearest:
        expected[0, :3, 4:7] = 0
    else:
        expected[0, 3, 0] = 0
    here = Expected(np.array([0.0, 3.0, 0.0]), np.full(3, spread))
    found = postprocess(plugin, labels, SPACING, (), {"right": here, "left": here})
    np.testing.assert_array_equal(found, expected)


def test_a_place_counts_in_the_whole_volume_not_in_the_box_of_the_class() -> None:
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[1, 8:10, 8:10] = labels[2, 15:18, 15:18] = 1
    keep_largest(labels, 1, Expected(np.array([1.0, 8.5, 8.5]), np.full(3, 2.0)))
    assert labels[1].sum() == 4
    assert labels[2].sum() == 0


def test_a_border_is_drawn_between_the_parts_that_are_kept(plugin) -> None:
    """What one class has inside the other becomes the other's, and is not cleaned away."""
    labels = np.zeros((3, 40, 4), np.uint8)
    labels[:, 10:15], labels[:, 15:30] = 1, 2
    expected = labels.copy()
    labels[1, 12, 2], labels[1, 20, 2] = 2, 1
    labels[1, 38, 1] = 2
    border = Border(
        axis="y", classes=("left", "right"), weights=(0.0,) * 3 * POINTS, offset=0.25, error=1.0
    )
    found = postprocess(plugin, labels, SPACING, ("left",), border=border)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("share", [0.002, 0.3], ids=["many parts", "one large part"])
def test_cleaning_holds_what_is_counted_for_it(share: float) -> None:
    noise = np.random.default_rng(0).random((128, 128, 128))
    labels = (noise < share).astype(np.uint8)
    both = (noise < share).astype(np.uint8) + (noise < share / 2)
    border = Border(
        axis="x", classes=("left", "right"), weights=(0.0,) * 3 * POINTS, offset=0.5, error=1.0
    )
    for clean in (
        lambda: keep_largest(labels, 1, Expected(np.zeros(3), np.ones(3))),
        lambda: border.draw(both, ("left", "right"), SPACING),
    ):
        tracemalloc.start()
        clean()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (BYTES_PER_CLEANED_VOXEL + 0.5) * labels.size
