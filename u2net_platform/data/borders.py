"""The slice that parts two classes, as the shape of both together tells.

Where readers part an organ with a slice, which one they choose is partly chance. A network learns
each choice by heart; how long and how wide the organ is says as much about the next: RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from scipy import ndimage

from u2net_platform.data.places import largest_part
from u2net_platform.imaging.grid import Spacing

if TYPE_CHECKING:
    from u2net_platform.data.store import PreparedCase
    from u2net_platform.domains.spec import DomainSpec

AXES = ("z", "y", "x")
POINTS = 20  # along an organ, at which its shape is taken
LEAST_CASES = 10  # of fewer, no shape is learned
PENALTIES = np.logspace(-2, 2, 17)
DOUBTFUL = 4.0  # errors: what a shape has further off is no whole organ

Modest = Annotated[FiniteFloat, Field(ge=-1e3, le=1e3)]


class Border(BaseModel):
    """What training cases tell of the slice between two classes.

    axis: across which it lies, of a canonical volume. classes: the names of that below and of that
        above the slice.
    The slice's place, as a part of the length of both, is `offset` + `weights` · profile, with a
    root mean square error of `error` on a case that was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: Literal["z", "y", "x"]
    classes: tuple[str, str]
    weights: Annotated[tuple[Modest, ...], Field(min_length=3 * POINTS, max_length=3 * POINTS)]
    offset: Modest
    error: Annotated[FiniteFloat, Field(ge=0, le=1)]

    def draw(
        self, labels: NDArray[np.uint8], class_names: Sequence[str], spacing_zyx_mm: Spacing
    ) -> None:
        """Part the classes of a canonical volume, z y x, with one slice, in place.

        It lies halfway between where they meet and where their shape has it; where they meet, if
        the volume cuts the organ off, or the two are too far apart. Of both together the largest
        part is the organ; nothing else is changed, and nothing where a class is absent.
        """
        values = [1 + class_names.index(name) for name in self.classes]
        axis = AXES.index(self.axis)
        if (organ := _organ(labels, values, axis, spacing_zyx_mm)) is None:
            return
        expected = self.offset + float(np.dot(self.weights, organ.profile))
        close = abs(expected - organ.border) <= DOUBTFUL * self.error
        place = (organ.border + expected) / 2 if organ.is_whole and close else organ.border
        first = round(organ.length * place)
        if not 0 < first < organ.length:
            return  # neither class may vanish
        slices, inside = (np.moveaxis(one, axis, 0) for one in (labels[organ.box], organ.voxels))
        slices[:first][inside[:first]] = values[0]
        slices[first:][inside[first:]] = values[1]


def border_of(spec: DomainSpec, cases: Sequence[PreparedCase]) -> Border | None:
    """Learn the border that a spec declares; None where it declares none, or where fewer than
    `LEAST_CASES` show the whole organ with both classes."""
    declared = spec.postprocessing.border
    if declared is None:
        return None
    axis = AXES.index(declared.axis)
    values = [1 + spec.class_names.index(name) for name in declared.between]

    def organs() -> list[_Organ]:
        return [
            organ
            for case in cases
            if not {*values} & {*spec.hidden_classes(case.id)}
            and (organ := _organ(case.labels, values, axis, case.grid.spacing_zyx_mm))
            and organ.is_whole
        ]

    found = organs()
    if 2 * sum(one.ascends for one in found) < len(found):
        values.reverse()
        found = organs()
    if len(found) < LEAST_CASES:
        return None
    from sklearn.linear_model import RidgeCV  # takes a second, and is needed once

    fitted = RidgeCV(PENALTIES).fit([one.profile for one in found], [one.border for one in found])
    return Border(
        axis=declared.axis,
        classes=(spec.class_names[values[0] - 1], spec.class_names[values[1] - 1]),
        weights=tuple(map(float, fitted.coef_)),
        offset=float(fitted.intercept_),
        error=float(np.sqrt(-fitted.best_score_)),
    )


class _Organ(NamedTuple):
    """Two classes together, along an axis: their largest part.

    box: where it lies. voxels: which of the box are its. length: in slices. border: the slice that
    parts the classes best, as a part of the length. ascends: whether the first class lies below.
    is_whole: whether it ends before the volume does. profile: at `POINTS` places the area of a
    slice, in parts of the mean area, and its sides in cm.
    """

    box: tuple[slice, ...]
    voxels: NDArray[np.bool_]
    length: int
    border: float
    ascends: bool
    is_whole: bool
    profile: NDArray[np.float64]


def _organ(
    labels: NDArray[np.uint8], values: Sequence[int], axis: int, spacing_zyx_mm: Spacing
) -> _Organ | None:
    """None where a class is absent from it."""
    both = (labels == values[0]) | (labels == values[1])
    if not both.any():
        return None
    np.equal(*largest_part(both), out=both)
    (box,) = ndimage.find_objects(both.view(np.uint8))
    both = both[box].copy()
    slices, inside = (np.moveaxis(one, axis, 0) for one in (labels[box], both))
    lower, upper = (((slices == value) & inside).sum((1, 2)) for value in values)
    if not (lower.any() and upper.any()):
        return None
    below, above = np.cumsum([0, *lower]), np.cumsum([0, *upper])
    right = below + above[-1] - above  # voxels, where slice k is the first of the upper class
    area = lower + upper
    cm = np.delete(spacing_zyx_mm, axis) / 10
    sides = [inside.any(other).sum(1) * cm[2 - other] for other in (2, 1)]
    length = len(area)
    middles = np.arange(length) + 0.5
    points = (np.arange(POINTS) + 0.5) * length / POINTS
    profile = [np.interp(points, middles, row) for row in (area / area.mean(), *sides)]
    return _Organ(
        box,
        both,
        length,
        border=int(right.argmax()) / length,
        ascends=bool(np.average(middles, weights=lower) < np.average(middles, weights=upper)),
        is_whole=box[axis].start > 0 and box[axis].stop < labels.shape[axis],
        profile=np.concatenate(profile),
    )
