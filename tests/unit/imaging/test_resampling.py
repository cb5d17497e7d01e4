"""Round trips through physical space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from u2net_platform.imaging import resampling
from u2net_platform.imaging.cropping import cropped_to_nonzero
from u2net_platform.imaging.grid import Grid, canonical_grid
from u2net_platform.imaging.resampling import (
    labels_from_scores,
    resample_image,
    resample_labels,
    respaced,
)
from u2net_platform.imaging.volume import (
    ImageVolume,
    LabelVolume,
    canonical,
    turned_back,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def slabs_of(scores: np.ndarray) -> list[np.ndarray]:
    return np.array_split(scores, range(1, scores.shape[1], 3), axis=1)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("spacing", [(1.5, 1.1, 0.9), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("how", ["nearest", "linear"])
def test_a_blob_keeps_its_place_there_and_back(
    any_grid: Grid, blob, centre, spacing: tuple[float, float, float], how
) -> None:
    original = blob(any_grid)
    turned = canonical(original)
    image = cropped_to_nonzero(ImageVolume(turned.array[None].astype(np.float32), turned.grid))
    prepared = resample_labels(turned, respaced(image.grid, spacing), how)
    half_voxel = min(any_grid.spacing_zyx_mm) / 2
    assert np.linalg.norm(centre(prepared) - centre(original)) < half_voxel
    scores = np.stack([prepared.array != 1, prepared.array == 1]).astype(np.float32)
    slabs, target = slabs_of(scores), canonical_grid(any_grid)
    array = labels_from_scores(slabs, prepared.grid, image.grid, target)
    back = LabelVolume(turned_back(array, any_grid), any_grid)
    assert np.linalg.norm(centre(back) - centre(original)) < half_voxel
    assert dice(back.array, original.array) > 0.95


def test_respacing_keeps_centre_and_directions(oblique: Grid) -> None:
    grid = respaced(oblique, (5.0, 0.7, 1.6))
    assert grid.shape_zyx == (12, 51, 36)
    middle = [np.subtract(g.shape_zyx, 1) / 2 for g in (oblique, grid)]
    assert grid.point(middle[1]) == pytest.approx(oblique.point(middle[0]))
    assert grid.direction_lps == oblique.direction_lps
    assert respaced(oblique, (900.0, 1.2, 1.6)).shape_zyx[0] == 1


def test_scores_go_on_to_the_edge_of_an_image_that_their_grid_ends_short_of(oblique: Grid) -> None:
    coarse = respaced(oblique, (14.0, 8.0, 13.0))
    scores = np.random.default_rng(0).normal(size=(3, *coarse.shape_zyx)).astype(np.float32)
    found = labels_from_scores(slabs_of(scores), coarse, oblique, oblique)
    assert (coarse.index(oblique.point((0, 0, 0))) < -0.5).all()
    assert found[0, 0, 0] == scores[:, 0, 0, 0].argmax()
    assert found[-1, -1, -1] == scores[:, -1, -1, -1].argmax()


def test_beyond_the_box_that_has_scores_is_background(oblique: Grid) -> None:
    box = replace(oblique, shape_zyx=(4, 5, 6), origin_lps_mm=tuple(oblique.point((8, 9, 10))))
    scores = np.zeros((3, 1, 2, 2), np.float32)
    scores[2] = 1
    expected = np.zeros(oblique.shape_zyx, np.uint8)
    expected[8:12, 9:14, 10:16] = 2
    coarse = replace(respaced(box, (9.0, 3.5, 5.5)), shape_zyx=(1, 2, 2))
    found = labels_from_scores(slabs_of(scores), coarse, box, oblique)
    assert np.array_equal(found, expected)


def test_the_greatest_interpolated_score_wins(oblique: Grid) -> None:
    coarse = np.random.default_rng(0).normal(size=(4, 20, 30, 36)).astype(np.float32)
    fine = respaced(oblique, (1.5, 1.2, 1.6))
    found = labels_from_scores(slabs_of(coarse), oblique, fine, fine)
    z = np.clip((np.arange(fine.shape_zyx[0]) + 0.5) / 2 - 0.5, 0, 19)
    low, part = np.floor(z).astype(int), (z % 1)[None, :, None, None]
    mixed = coarse[:, low] * (1 - part) + coarse[:, np.minimum(low + 1, 19)] * part
    assert (found == mixed.argmax(0)).mean() > 0.999  # but for ties of rounding


@pytest.mark.parametrize("spacing", [(2.1, 1.2, 1.1), (1.0, 1.0, 6.0)])
def test_a_volume_made_in_slabs_is_the_same(oblique: Grid, monkeypatch, spacing) -> None:
    source = replace(oblique, shape_zyx=(90, 12, 14), spacing_zyx_mm=spacing)
    array = np.random.default_rng(0).normal(size=(2, *source.shape_zyx)).astype(np.float32)
    target = respaced(source, (1.3, 1.5, 1.7))
    whole = resample_image(ImageVolume(array, source), target, "bspline").array
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 2000)
    slabs = resample_image(ImageVolume(array, source), target, "bspline").array
    np.testing.assert_allclose(slabs, whole, atol=2e-6)


def test_splines_agree_with_scipy() -> None:
    grid = Grid((12, 14, 16), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), AXIAL)
    array = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=grid.shape_zyx), 1)
    image = ImageVolume(array[None].astype(np.float32), grid)
    inner = Grid((10, 12, 14), (1.9, 1.7, 1.3), (2.0, 2.0, 2.0), AXIAL)
    found = resample_image(image, inner, "bspline").array[0]
    index = np.indices(inner.shape_zyx)
    at = [1 + i * s / 2 for i, s in zip(index, inner.spacing_zyx_mm, strict=True)]
    expected = ndimage.map_coordinates(array, at, order=3, mode="mirror")
    assert np.abs(found - expected).max() < 1e-3


def test_a_coarse_axis_is_interpolated_apart() -> None:
    grid = Grid((6, 12, 12), (6.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXIAL)
    step = np.zeros(grid.shape_zyx, np.float32)
    step[3:] = 100
    target = respaced(grid, (2.0, 0.8, 0.8))
    apart = resample_image(ImageVolume(step[None], grid), target, "bspline").array
    assert apart.min() > -1 and apart.max() < 101  # a spline across the slices overshoots by ~7
    near = replace(grid, spacing_zyx_mm=(2.9, 1.0, 1.0))
    together = resample_image(
        ImageVolume(step[None], near), respaced(near, (1.0, 0.8, 0.8)), "bspline"
    )
    assert together.array.max() > 104


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_an_image_too_thin_for_splines_is_interpolated_linearly(slices: int) -> None:
    grid = Grid((slices, 20, 20), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXIAL)
    array = np.random.default_rng(0).random((1, slices, 20, 20)).astype(np.float32)
    target = respaced(grid, (2.0, 0.5, 1.5))
    thin = resample_image(ImageVolume(array, grid), target, "bspline").array
    linear = resample_image(ImageVolume(array, grid), target, "linear").array
    assert np.array_equal(thin, linear)
    assert array.min() <= thin.min() < thin.max() <= array.max()


def test_linear_labels_are_smoother_than_nearest(oblique: Grid, blob) -> None:
    fine = respaced(oblique, (0.6, 0.6, 0.6))
    labels = blob(oblique)
    truth = blob(replace(fine)).array  # the ellipsoid itself, drawn on the fine grid
    scores = [
        dice(resample_labels(labels, fine, how).array, truth) for how in ("nearest", "linear")
    ]
    assert scores[1] > scores[0] > 0.9


def test_label_values_survive_resampling(oblique: Grid) -> None:
    array = np.zeros(oblique.shape_zyx, np.uint8)
    array[3:9], array[9:15] = 3, 200
    for how in ("nearest", "linear"):
        found = resample_labels(
            LabelVolume(array, oblique), respaced(oblique, (2.0, 2.0, 2.0)), how
        )
        assert set(np.unique(found.array)) == {0, 3, 200}


def test_cropping_keeps_every_voxel_that_any_channel_holds(oblique: Grid) -> None:
    array = np.zeros((2, *oblique.shape_zyx), np.float32)
    array[0, 5, 6, 7], array[1, 9, 20, 30] = 1, -2
    cropped = cropped_to_nonzero(ImageVolume(array, oblique))
    assert np.array_equal(cropped.array, array[:, 5:10, 6:21, 7:31])
    assert cropped.grid.point((0, 0, 0)) == pytest.approx(oblique.point((5, 6, 7)))
    empty = ImageVolume(np.zeros_like(array), oblique)
    assert cropped_to_nonzero(empty) is empty


def test_scores_of_one_slab_reach_a_fine_grid_a_few_planes_at_a_time(
    oblique: Grid, monkeypatch
) -> None:
    scores = np.random.default_rng(0).random((3, *oblique.shape_zyx)).astype(np.float32)
    fine = respaced(oblique, (0.5, 1.2, 1.6))
    whole = labels_from_scores([scores], oblique, fine, fine)
    sizes = []

    def seen(image: object, grid: Grid, *others: object) -> np.ndarray:
        sizes.append(np.prod(grid.shape_zyx))
        return inner(image, grid, *others)

    inner = resampling.resampled
    monkeypatch.setattr(resampling, "resampled", seen)
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 7000)
    np.testing.assert_array_equal(labels_from_scores([scores], oblique, fine, fine), whole)
    assert max(sizes) <= 7000
