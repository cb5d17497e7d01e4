"""Where the voxels of a volume lie in physical space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from u2net_platform.errors import GeometryMismatch

# Two grids are one if no corner moves by more than this part of the smallest voxel side: headers
# round, and a scanner's table does not place a patient more exactly.
SAME_GRID_TOLERANCE = 0.1

Matrix = NDArray[np.float64]
Shape = tuple[int, int, int]  # z y x, voxels
Spacing = tuple[float, float, float]  # z y x, mm


@dataclass(frozen=True)
class Grid:
    """Voxel centres in physical space.

    `direction_lps` is row-major; its columns are the directions of the x, y and z image axes in
    DICOM's patient space (left, posterior, superior), as SimpleITK has them.
    """

    shape_zyx: Shape
    spacing_zyx_mm: Spacing
    origin_lps_mm: tuple[float, float, float]
    direction_lps: tuple[float, ...]

    @property
    def steps(self) -> Matrix:
        """3 x 3, mm: column k is one voxel's step along image axis x, y, z."""
        directions = np.array(self.direction_lps, float).reshape(3, 3)
        return np.asarray(directions * np.array(self.spacing_zyx_mm[::-1], float))

    def point(self, index_zyx: Sequence[float]) -> Matrix:
        """Where an index (z, y, x; may be fractional) lies, in LPS mm."""
        return np.asarray(self.origin_lps_mm + self.steps @ np.asarray(index_zyx, float)[::-1])

    def index(self, point_lps_mm: Matrix) -> Matrix:
        """The index (z, y, x; may be fractional) of a point."""
        offset = np.asarray(point_lps_mm) - self.origin_lps_mm
        return np.asarray(np.linalg.solve(self.steps, offset)[::-1])

    def planes(self, start: int, stop: int) -> Grid:
        """The part that holds these planes along z."""
        _, y, x = self.shape_zyx
        return self.box((start, 0, 0), (stop - start, y, x))

    def box(self, start_zyx: Sequence[int], shape_zyx: Shape) -> Grid:
        """The part of that shape from an index on."""
        return replace(self, shape_zyx=shape_zyx, origin_lps_mm=triple(self.point(start_zyx)))

    def displacement_mm(self, other: Grid) -> float:
        """How far apart the two grids' corners are at most; infinite if the shapes differ."""
        if self.shape_zyx != other.shape_zyx:
            return math.inf
        corners = itertools.product(*((0, side - 1) for side in self.shape_zyx))
        return max(float(np.linalg.norm(self.point(at) - other.point(at))) for at in corners)

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether the voxels of both are the same places."""
        return self.displacement_mm(other) <= tolerance_mm

    def require_match(self, other: Grid, this: str, that: str) -> None:
        """Stop unless both are one grid within `SAME_GRID_TOLERANCE` voxels.

        Raises:
            GeometryMismatch: naming `this` and `that`, and how far they are apart.
        """
        allowed = SAME_GRID_TOLERANCE * min(self.spacing_zyx_mm)
        moved = self.displacement_mm(other)
        if moved > allowed:
            how = (
                f"their corners lie up to {moved:.3g} mm apart ({allowed:.3g} mm is allowed)"
                if math.isfinite(moved)
                else f"their shapes (z, y, x) are {self.shape_zyx} and {other.shape_zyx}"
            )
            raise GeometryMismatch(
                f"{this} and {that} do not lie on the same grid: {how}",
                "Resample one onto the other, or copy the right header.",
            )


def canonical_grid(grid: Grid) -> Grid:
    """The grid that a volume on `grid` has when it is canonical."""
    return orientation(grid)[0]


def orientation(grid: Grid) -> tuple[Grid, list[int], list[int]]:
    """The canonical grid; for each of its axes z, y, x that of `grid`; and which are flipped."""
    directions = np.reshape(grid.direction_lps, (3, 3))
    order = max(  # entry k is the image axis that lies nearest to patient axis k
        itertools.permutations(range(3)),
        key=lambda axes: sum(abs(directions[k, axis]) for k, axis in enumerate(axes)),
    )
    flipped = [directions[k, axis] < 0 for k, axis in enumerate(order)]
    axes_zyx = [2 - axis for axis in reversed(order)]
    shape = [grid.shape_zyx[axis] for axis in axes_zyx]
    first = [0, 0, 0]
    for axis, flip in zip(axes_zyx, reversed(flipped), strict=True):
        first[axis] = grid.shape_zyx[axis] - 1 if flip else 0
    turned = directions[:, order] * np.where(flipped, -1.0, 1.0)
    result = Grid(
        shape_zyx=(shape[0], shape[1], shape[2]),
        spacing_zyx_mm=triple(grid.spacing_zyx_mm[axis] for axis in axes_zyx),
        origin_lps_mm=triple(grid.point(first)),
        direction_lps=tuple(map(float, turned.ravel())),
    )
    return result, axes_zyx, [k for k, flip in enumerate(reversed(flipped)) if flip]


def triple(values: Any) -> tuple[float, float, float]:
    """Three numbers as floats."""
    first, second, third = map(float, values)
    return first, second, third
