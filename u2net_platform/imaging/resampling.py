"""From one grid to another through physical space."""

# mypy: allow-untyped-calls
from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from u2net_platform.imaging.volume import Grid, ImageVolume, LabelVolume, resampled, to_sitk

# Slices this much thicker than the voxels in plane are so far apart that a spline across them
# overshoots. Source: Isensee et al., nnU-Net, Nature Methods 18 (2021), supplementary note 2.
ANISOTROPIC_RATIO = 3.0
SPLINE_SUPPORT = 4  # voxels that a cubic spline reaches over
LABEL_INTERPOLATORS = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLabelLinear}


def respaced(grid: Grid, spacing_zyx_mm: tuple[float, float, float]) -> Grid:
    """A grid of another spacing over the same box: same centre and directions, shape rounded."""
    sizes = zip(grid.shape_zyx, grid.spacing_zyx_mm, spacing_zyx_mm, strict=True)
    z, y, x = (max(1, round(side * old / new)) for side, old, new in sizes)
    target = replace(grid, shape_zyx=(z, y, x), spacing_zyx_mm=spacing_zyx_mm)
    shift = _centre(grid) - _centre(target)
    first = grid.origin_lps_mm + shift
    return replace(target, origin_lps_mm=(float(first[0]), float(first[1]), float(first[2])))


def resample_image(
    image: ImageVolume, grid: Grid, interpolation: Literal["bspline", "linear"]
) -> ImageVolume:
    """Intensities on another grid; beyond the image its border goes on.

    With `bspline` (cubic), an image whose voxels are `ANISOTROPIC_RATIO` times longer along one
    axis is first resampled by splines within its slices, and then linearly across them. An image
    of fewer than `SPLINE_SUPPORT` voxels along an axis is interpolated linearly.
    """
    if image.grid.matches(grid):
        return ImageVolume(image.array, grid)
    spline = interpolation == "bspline" and min(image.grid.shape_zyx) >= SPLINE_SUPPORT
    steps = [(grid, sitk.sitkBSpline if spline else sitk.sitkLinear)]
    coarse = int(np.argmax(image.grid.spacing_zyx_mm))
    ratio = image.grid.spacing_zyx_mm[coarse] / min(image.grid.spacing_zyx_mm)
    if spline and ratio >= ANISOTROPIC_RATIO:
        within = list(grid.spacing_zyx_mm)
        within[coarse] = image.grid.spacing_zyx_mm[coarse]
        slices = respaced(image.grid, (within[0], within[1], within[2]))
        steps = [(slices, sitk.sitkBSpline), (grid, sitk.sitkLinear)]
    array = np.empty((len(image.array), *grid.shape_zyx), np.float32)
    for channel, source in enumerate(image.array):
        array[channel] = _resample_channel(source, image.grid, steps)
    return ImageVolume(array, grid)


def resample_labels(
    labels: LabelVolume, grid: Grid, interpolation: Literal["nearest", "linear"]
) -> LabelVolume:
    """Classes on another grid, background beyond the volume. `linear` interpolates each class on
    its own and takes the greatest."""
    image = to_sitk(labels.array, labels.grid)
    return LabelVolume(resampled(image, grid, LABEL_INTERPOLATORS[interpolation], False, 0), grid)


def labels_from_scores(scores: NDArray[np.float32], grid: Grid, target: Grid) -> LabelVolume:
    """The class of the greatest score (c z y x, on `grid`) at every voxel of `target`.

    Each class is interpolated linearly. A running maximum holds two volumes of the target's size
    at a time, however many classes there are. Outside `grid` (half a voxel beyond its outermost
    centres) is background.
    """
    best = _scores_on(target, scores[0], grid, outside=0.0)
    labels = np.zeros(target.shape_zyx, np.uint8)
    for value in range(1, len(scores)):
        candidate = _scores_on(target, scores[value], grid, outside=float(np.finfo(np.float32).min))
        better = candidate > best
        labels[better] = value
        np.copyto(best, candidate, where=better)
    return LabelVolume(labels, target)


def _scores_on(
    target: Grid, scores: NDArray[np.float32], grid: Grid, outside: float
) -> NDArray[np.float32]:
    return np.asarray(resampled(to_sitk(scores, grid), target, sitk.sitkLinear, False, outside))


def _resample_channel(
    array: NDArray[np.float32], grid: Grid, steps: list[tuple[Grid, int]]
) -> NDArray[np.float32]:
    for target, interpolator in steps:
        array = resampled(to_sitk(array, grid), target, interpolator, True, 0.0)
        grid = target
    return array


def _centre(grid: Grid) -> NDArray[np.float64]:
    return grid.point([(side - 1) / 2 for side in grid.shape_zyx])
