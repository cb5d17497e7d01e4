"""Where in an image a class lies, as its training cases tell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from scipy import ndimage

from u2net_platform.imaging.grid import Grid, triple

if TYPE_CHECKING:
    from u2net_platform.data.store import PreparedCase

Part = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[FiniteFloat, Field(ge=1e-3)]


class Expected(NamedTuple):
    """A place in voxels of a grid, z, y, x; the middle of its first voxel is 0."""

    centre_zyx: NDArray[np.float64]
    spread_zyx: NDArray[np.float64]


class Place(BaseModel):
    """Means over training cases.

    centre_zyx: of a class, as parts of the sides of the image, cropped to what is not zero.
    spread_mm: root mean square distance of the class's voxels from there.
    extent_zyx_mm: of the cropped image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    centre_zyx: tuple[Part, Part, Part]
    spread_mm: Length
    extent_zyx_mm: tuple[Length, Length, Length]

    def on(self, image: Grid, target: Grid) -> Expected:
        """The place on `target`, for an image whose cropped grid is `image`.

        An image of another extent shows more or less of the patient, nobody knows on which side:
        half the difference adds to the spread.
        """
        centre = np.multiply(self.centre_zyx, image.shape_zyx) - 0.5
        unknown = (_extent(image) - self.extent_zyx_mm) / 2
        spread = math.hypot(self.spread_mm, *unknown)
        return Expected(
            target.index(image.point(triple(centre))), np.divide(spread, target.spacing_zyx_mm)
        )


def places_of(names: Sequence[str], cases: Sequence[PreparedCase]) -> dict[str, Place]:
    """The place of each class that some case has; `names` are those of class 1, 2, ..."""
    found = defaultdict(list)
    for case in cases:
        grid = case.grid
        for value, voxels in case.foreground.items():
            parts = (voxels + 0.5) / grid.shape_zyx
            found[value].append((parts.mean(0), parts.var(0), _extent(grid)))
    return {
        name: _place(*map(np.array, zip(*found[value], strict=True)))
        for value, name in enumerate(names, start=1)
        if value in found
    }


def largest_part(
    mask: NDArray[np.bool_], expected: Expected | None = None, start_zyx: Sequence[int] = (0, 0, 0)
) -> tuple[NDArray[np.int32], int]:
    """The connected parts of a mask that is somewhere true, numbered from 1, and the number of the
    largest; voxels that share a corner connect.

    expected: what lies further from there counts as smaller: as its voxels, divided by
        1 + (distance / spread)². What is larger than the organ and looks like it is seldom in its
        place: RESULTS.md.
    start_zyx: where on the grid of `expected` the mask begins.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return parts, 1
    # Plane by plane, as counting turns what it counts into 64-bit numbers.
    sizes, sums = np.zeros(count + 1), np.zeros((3, count + 1))
    for z, plane in enumerate(parts):
        at = np.flatnonzero(plane)
        numbers = plane.ravel()[at]
        here = np.bincount(numbers, minlength=count + 1)
        sizes += here
        rows, columns = np.divmod(at, plane.shape[1])
        sums += [z * here, *(np.bincount(numbers, axis, count + 1) for axis in (rows, columns))]
    sizes, sums = sizes[1:], sums[:, 1:]
    if expected:
        centres = np.array(start_zyx)[:, None] + sums / sizes
        away = (centres - expected.centre_zyx[:, None]) / expected.spread_zyx[:, None]
        sizes = sizes / (1 + (away**2).sum(0))
    return parts, 1 + int(sizes.argmax())


def _place(
    means: NDArray[np.float64], variances: NDArray[np.float64], extents: NDArray[np.float64]
) -> Place:
    """From a row for each case: of its voxels, as parts of the sides, and of its image, mm."""
    centre = means.mean(0)
    squares = ((variances + (means - centre) ** 2) * extents**2).sum(1)
    spread = max(float(np.sqrt(squares.mean())), 1.0)  # a class may have a single voxel
    return Place(centre_zyx=triple(centre), spread_mm=spread, extent_zyx_mm=triple(extents.mean(0)))


def _extent(grid: Grid) -> NDArray[np.float64]:
    return np.multiply(grid.shape_zyx, grid.spacing_zyx_mm)
