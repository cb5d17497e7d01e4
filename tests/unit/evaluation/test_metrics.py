import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from u2net_platform.evaluation.metrics import ClassScores, score_case

SPACING = (3.0, 0.5, 1.5)


def box(*corners: tuple[int, int], shape: tuple[int, int, int] = (12, 40, 24)) -> NDArray[np.uint8]:
    volume = np.zeros(shape, np.uint8)
    volume[tuple(slice(*corner) for corner in corners)] = 1
    return volume


def score(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], **kwargs: float
) -> ClassScores:
    tolerance = kwargs.get("tolerance_mm", 1.0)
    return score_case(reference, prediction, ("organ",), SPACING, tolerance)["organ"]


def test_a_box_moved_by_one_slice_has_the_scores_computed_by_hand() -> None:
    reference, moved = box((2, 6), (10, 30), (5, 15)), box((3, 7), (10, 30), (5, 15))
    found = score(reference, moved, tolerance_mm=3.0)
    assert found.dice == pytest.approx(0.75)  # 3 of 4 slices are shared
    assert found.hd95_mm == pytest.approx(3.0)  # one slice of 3 mm, never one voxel
    assert found.surface_dice == pytest.approx(1.0)
    assert found.reference_ml == pytest.approx(4 * 20 * 10 * 3.0 * 0.5 * 1.5 / 1000)


def test_surfaces_apart_by_exactly_the_tolerance_count_as_the_same() -> None:
    reference, moved = box((2, 6), (10, 30), (5, 15)), box((2, 6), (11, 31), (5, 15))
    assert score(reference, moved, tolerance_mm=0.5).surface_dice == pytest.approx(1.0)
    assert score(reference, moved, tolerance_mm=0.4).surface_dice < 0.95


def test_scores_agree_with_monai_on_smooth_blobs() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 24, 32, 28))
    smooth = ndimage.gaussian_filter(noise, (0, 4, 5, 4))
    reference, prediction = ((blob > 0.2 * smooth.std()).astype(np.uint8) for blob in smooth)
    prediction = np.where(np.arange(28) < 20, reference, prediction)
    pair = [torch.from_numpy(volume)[None, None] for volume in (prediction, reference)]
    found = score_case(reference, prediction, ("blob",), (1.0, 1.0, 1.0), 1.0)["blob"]
    surface = compute_surface_dice(*pair, [1.0], include_background=True, use_subvoxels=True)
    hausdorff = compute_hausdorff_distance(*pair, include_background=True, percentile=95)
    assert found.dice == pytest.approx(compute_dice(*pair).item(), abs=1e-6)
    assert found.surface_dice == pytest.approx(surface.item(), abs=1e-4)
    # MONAI takes surface voxels where surface-distance takes areas between voxels.
    assert found.hd95_mm == pytest.approx(hausdorff.item(), abs=1.0)


def test_distances_follow_the_spacing_of_each_axis() -> None:
    point = box((5, 6), (10, 11), (5, 6))
    for axis, step_mm in enumerate(SPACING):
        assert score(point, np.roll(point, 2, axis)).hd95_mm == pytest.approx(2 * step_mm)


def test_a_class_empty_in_both_is_absent() -> None:
    nothing = np.zeros((4, 4, 4), np.uint8)
    assert score(nothing, nothing) == ClassScores(None, None, None, 0.0, 0.0)


def test_a_class_empty_in_one_scores_nothing_and_the_diagonal_of_the_volume() -> None:
    organ, nothing = box((2, 6), (10, 30), (5, 15)), box((0, 0), (0, 0), (0, 0))
    for found in (score(organ, nothing), score(nothing, organ)):
        assert (found.dice, found.surface_dice) == (0.0, 0.0)
        assert found.hd95_mm == pytest.approx(math.hypot(12 * 3.0, 40 * 0.5, 24 * 1.5))


def test_each_class_is_scored_apart_and_background_is_none() -> None:
    reference = box((2, 6), (10, 20), (5, 15)) + 2 * box((2, 6), (25, 35), (5, 15))
    prediction = np.where(reference == 2, 2, 0).astype(np.uint8)
    found = score_case(reference, prediction, ("first", "second"), SPACING, 1.0)
    assert {name: scores.dice for name, scores in found.items()} == {"first": 0.0, "second": 1.0}
