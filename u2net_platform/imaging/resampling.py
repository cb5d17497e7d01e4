"""From one grid to another through physical space."""

# mypy: allow-untyped-calls
from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from u2net_platform.imaging.grid import Grid, Spacing, triple
from u2net_platform.imaging.volume import (
    ImageVolume,
    LabelVolume,
    resampled,
    to_sitk,
)

# Slices this much thicker than the voxels in plane are so far apart that a spline across them
# overshoots. Source: Isensee et al., nnU-Net, Nature Methods 18 (2021), supplementary note 2.
ANISOTROPIC_RATIO = 3.0
SPLINE_SUPPORT = 4  # voxels that a cubic spline reaches over
# Voxels beyond which a value no longer acts on a cubic spline by more than 1 in 10 million.
SPLINE_REACH = 14
SLAB_VOXELS = 1 << 25  # a larger volume is resampled in slabs of so many
LABEL_INTERPOLATORS = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLabelLinear}


def respaced(grid: Grid, spacing_zyx_mm: Spacing) -> Grid:
    """A grid of another spacing over the same box: same centre and directions, shape rounded."""
    sizes = zip(grid.shape_zyx, grid.spacing_zyx_mm, spacing_zyx_mm, strict=True)
    z, y, x = (max(1, round(side * old / new)) for side, old, new in sizes)
    target = replace(grid, shape_zyx=(z, y, x), spacing_zyx_mm=spacing_zyx_mm)
    shift = _centre(grid) - _centre(target)
    return replace(target, origin_lps_mm=triple(grid.origin_lps_mm + shift))


def resample_image(
    image: ImageVolume, grid: Grid, interpolation: Literal["bspline", "linear"]
) -> ImageVolume:
    """Intensities on another grid; beyond the image its border goes on.

    With `bspline` (cubic), an image whose voxels are `ANISOTROPIC_RATIO` times longer along one
    axis is first resampled by splines within its slices, and then linearly across them. An image
    of fewer than `SPLINE_SUPPORT` voxels along an axis is interpolated linearly.

    A large volume is made in slabs; where they meet, it is the same to 1 in 10 million.
    """
    if image.grid.matches(grid):
        return ImageVolume(image.array, grid)
    array = np.empty((len(image.array), *grid.shape_zyx), np.float32)
    slabs = math.ceil(max(image.array[0].size, array[0].size) / SLAB_VOXELS)
    thickness = math.ceil(grid.shape_zyx[0] / slabs)
    for start in range(0, grid.shape_zyx[0], thickness):
        stop = min(start + thickness, grid.shape_zyx[0])
        array[:, start:stop] = resample_planes(image, grid, interpolation, start, stop)
    return ImageVolume(array, grid)


def resample_planes(
    image: ImageVolume,
    grid: Grid,
    interpolation: Literal["bspline", "linear"],
    start: int,
    stop: int,
) -> NDArray[np.float32]:
    """What `resample_image` has between two planes of `grid` (c z y x), from the part of the image
    that it depends on."""
    if image.grid.matches(grid):
        return image.array[:, start:stop]
    steps = _steps(image.grid, grid, interpolation)
    parts = [_resample_planes(channel, steps, start, stop) for channel in image.array]
    return np.stack(parts)


def _steps(source: Grid, target: Grid, interpolation: str) -> list[tuple[Grid, int]]:
    """The source's grid, and then each grid on the way with the interpolation that leads to it."""
    spline = interpolation == "bspline" and min(source.shape_zyx) >= SPLINE_SUPPORT
    steps = [(source, 0), (target, sitk.sitkBSpline if spline else sitk.sitkLinear)]
    coarse = int(np.argmax(source.spacing_zyx_mm))
    ratio = source.spacing_zyx_mm[coarse] / min(source.spacing_zyx_mm)
    if spline and ratio >= ANISOTROPIC_RATIO:
        within = list(target.spacing_zyx_mm)
        within[coarse] = source.spacing_zyx_mm[coarse]
        slices = respaced(source, (within[0], within[1], within[2]))
        steps[1:] = [(slices, sitk.sitkBSpline), (target, sitk.sitkLinear)]
    return steps


def _resample_planes(
    source: NDArray[np.float32], steps: list[tuple[Grid, int]], start: int, stop: int
) -> NDArray[np.float32]:
    if len(steps) == 1:
        return source[start:stop]
    (before, _), (grid, interpolator) = steps[-2:]
    target = grid.planes(start, stop)
    first, last = _reach(before, target)
    array = _resample_planes(source, steps[:-1], first, last)
    image = to_sitk(array, before.planes(first, last))
    found: NDArray[np.float32] = resampled(image, target, interpolator, True, 0.0)
    return found


def _reach(source: Grid, target: Grid) -> tuple[int, int]:
    """The planes of the source that values on the target depend on."""
    corners = product(*((0, side - 1) for side in target.shape_zyx))
    at = [source.index(target.point(corner))[0] for corner in corners]
    planes = source.shape_zyx[0]
    first = min(max(0, math.floor(min(at)) - SPLINE_REACH), planes - 1)
    last = max(min(planes, math.ceil(max(at)) + 1 + SPLINE_REACH), first + 1)
    return first, last


def resample_labels(
    labels: LabelVolume, grid: Grid, interpolation: Literal["nearest", "linear"]
) -> LabelVolume:
    """Classes on another grid, background beyond the volume. `linear` interpolates each class on
    its own and takes the greatest."""
    image = to_sitk(labels.array, labels.grid)
    return LabelVolume(resampled(image, grid, LABEL_INTERPOLATORS[interpolation], False, 0), grid)


def labels_from_scores(
    slabs: Iterable[NDArray[np.float32]], grid: Grid, box: Grid, target: Grid
) -> NDArray[np.uint8]:
    """The class of the greatest score at every voxel of `target`, z y x.

    slabs: scores (k z y x) on `grid`, from its first planes to its last. No more of them is held
        than what is needed to interpolate between two slabs; and of the target, beside the labels,
        no more than `SLAB_VOXELS` at once.
    box: the part of `target` that `grid` is a respacing of. Beyond it is background.
    target: a grid with the same directions, up to rounding.

    Each class is interpolated linearly. Where the box ends beyond `grid`, whose shape is rounded,
    the outermost scores go on.
    """
    labels = np.zeros(target.shape_zyx, np.uint8)
    first = np.rint(target.index(box.point((0, 0, 0)))).astype(int)
    z, y, x = map(slice, first, first + box.shape_zyx)
    inside = labels[z, y, x]
    at = [grid.index(box.point((plane, 0, 0)))[0] for plane in range(len(inside))]
    step = max(1, SLAB_VOXELS // math.prod(box.shape_zyx[1:]))
    done = seen = 0
    held: NDArray[np.float32] | None = None
    for slab in slabs:
        held = slab if held is None else np.concatenate([held, slab], axis=1)
        seen += slab.shape[1]
        last = seen == grid.shape_zyx[0]
        stop = len(at) if last else bisect.bisect_right(at, seen - 1)
        part = grid.planes(seen - held.shape[1], seen)
        for start in range(done, stop, step):
            upto = min(start + step, stop)
            inside[start:upto] = _labels_on(box.planes(start, upto), held, part)
        done, held = stop, held[:, -1:].copy()  # a view would keep all of it
    return labels


def _labels_on(target: Grid, scores: NDArray[np.float32], grid: Grid) -> NDArray[np.uint8]:
    """A running maximum: holds two volumes of the target's size, however many classes."""
    best = _scores_on(target, scores[0], grid)
    labels = np.zeros(target.shape_zyx, np.uint8)
    for value in range(1, len(scores)):
        candidate = _scores_on(target, scores[value], grid)
        better = candidate > best
        labels[better] = value
        np.copyto(best, candidate, where=better)
    return labels


def _scores_on(target: Grid, scores: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    return np.asarray(resampled(to_sitk(scores, grid), target, sitk.sitkLinear, True, 0))


def _centre(grid: Grid) -> NDArray[np.float64]:
    return grid.point([(side - 1) / 2 for side in grid.shape_zyx])
