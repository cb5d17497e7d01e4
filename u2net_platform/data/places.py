"""Where in an image a class lies, as its training cases tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from u2net_platform.imaging.grid import Grid, triple

if TYPE_CHECKING:
    from u2net_platform.data.store import PreparedCase

Positive = Annotated[FiniteFloat, Field(gt=0)]


class Expected(NamedTuple):
    """A place in voxels of a grid, z, y, x; the middle of its first voxel is 0."""

    centre_zyx: NDArray[np.float64]
    spread_zyx: NDArray[np.float64]


class Place(BaseModel):
    """centre_zyx: a class's centre, as parts of the sides of an image that is cropped to what is
    not zero. spread_mm: root mean square distance of the class's voxels from there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    centre_zyx: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    spread_mm: Positive

    def on(self, image: Grid, target: Grid) -> Expected:
        """The place on `target`, for an image whose cropped grid is `image`."""
        centre = np.multiply(self.centre_zyx, image.shape_zyx) - 0.5
        spread = np.divide(self.spread_mm, target.spacing_zyx_mm)
        return Expected(target.index(image.point(triple(centre))), spread)


def places_of(names: Sequence[str], cases: Sequence[PreparedCase]) -> dict[str, Place]:
    """The place of each class that some case has; `names` are those of class 1, 2, ..."""
    voxels, sides = defaultdict(list), defaultdict(list)
    for case in cases:
        grid = case.grid
        for value, found in case.foreground.items():
            voxels[value].append((found + 0.5) / grid.shape_zyx)
            sides[value].append(np.multiply(grid.shape_zyx, grid.spacing_zyx_mm))
    places = {}
    for value, name in enumerate(names, start=1):
        if not voxels[value]:
            continue
        centre = np.mean([one.mean(0) for one in voxels[value]], axis=0)
        squares = [
            (((one - centre) * side) ** 2).sum(1).mean()
            for one, side in zip(voxels[value], sides[value], strict=True)
        ]
        smallest = min(cases[0].grid.spacing_zyx_mm)  # of a class of one voxel
        spread = max(float(np.sqrt(np.mean(squares))), smallest)
        places[name] = Place(centre_zyx=triple(centre), spread_mm=spread)
    return places
