"""The slice that parts two classes, as the shape of both together tells.

Where readers part an organ with a slice, which one they choose is partly chance. A network learns
each choice by heart; how long and how wide the organ is says as much about the next: RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from scipy import ndimage

if TYPE_CHECKING:
    from u2net_platform.data.store import PreparedCase
    from u2net_platform.domains.spec import DomainSpec

AXES = "zyx"
POINTS = 20  # along an organ, at which its shape is taken
LEAST_CASES = 10  # of fewer, no shape is learned
PENALTIES = np.logspace(-2, 2, 17)
DOUBTFUL = 4.0  # errors: what a shape has further off is no whole organ

ZYX = tuple[float, float, float]
Modest = Annotated[FiniteFloat, Field(ge=-1e3, le=1e3)]


class Border(BaseModel):
    """What training cases tell of the slice between two classes.

    axis: across which it lies, of a canonical volume. classes: the names of that below and of that
        above the slice.
    The slice's place, as a part of the length of both, is `offset` + `weights` · profile, with a
    root mean square error of `error` on a case that was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: Annotated[int, Field(ge=0, le=2)]
    classes: tuple[str, str]
    weights: Annotated[tuple[Modest, ...], Field(min_length=3 * POINTS, max_length=3 * POINTS)]
    offset: Modest
    error: Annotated[FiniteFloat, Field(ge=0, le=1)]

    def draw(
        self, labels: NDArray[np.uint8], class_names: Sequence[str], spacing_zyx_mm: ZYX
    ) -> None:
        """Part the classes of a canonical volume, z y x, with one slice, in place.

        It lies halfway between where they meet and where their shape has it. Where one is absent,
        nothing is changed.
        """
        values = [1 + class_names.index(name) for name in self.classes]
        if (organ := _organ(labels, values, self.axis, spacing_zyx_mm)) is None:
            return
        expected = self.offset + float(np.dot(self.weights, organ.profile))
        if not abs(expected - organ.border) <= DOUBTFUL * self.error:  # or it is no number
            expected = organ.border
        first = organ.start + round(organ.length * (organ.border + expected) / 2)
        if not organ.start < first < organ.start + organ.length:
            return  # neither class may vanish
        for index, plane in enumerate(np.moveaxis(labels, self.axis, 0)):
            plane[(plane == values[0]) | (plane == values[1])] = values[index >= first]


def border_of(spec: DomainSpec, cases: Sequence[PreparedCase]) -> Border | None:
    """Learn the border that a spec declares; None where it declares none, or where fewer than
    `LEAST_CASES` have both classes."""
    declared = spec.postprocessing.border
    if declared is None:
        return None
    axis = AXES.index(declared.axis)
    values = [1 + spec.class_names.index(name) for name in declared.between]
    if _mean_place(cases, values[0], axis) > _mean_place(cases, values[1], axis):
        values.reverse()
    organs = [
        organ
        for case in cases
        if not {*values} & {*spec.hidden_classes(case.id)}
        and (organ := _organ(case.labels, values, axis, case.grid.spacing_zyx_mm))
    ]
    if len(organs) < LEAST_CASES:
        return None
    from sklearn.linear_model import RidgeCV  # takes a second, and is needed once

    fitted = RidgeCV(PENALTIES).fit([one.profile for one in organs], [one.border for one in organs])
    return Border(
        axis=axis,
        classes=(spec.class_names[values[0] - 1], spec.class_names[values[1] - 1]),
        weights=tuple(map(float, fitted.coef_)),
        offset=float(fitted.intercept_),
        error=float(np.sqrt(-fitted.best_score_)),
    )


class _Organ(NamedTuple):
    """Two classes together, along an axis.

    start, length: in slices. border: the slice that parts them best, as a part of the length.
    profile: at `POINTS` places the area of a slice, in parts of the mean area, and its sides in cm.
    """

    start: int
    length: int
    border: float
    profile: NDArray[np.float64]


def _organ(
    labels: NDArray[np.uint8], values: Sequence[int], axis: int, spacing_zyx_mm: ZYX
) -> _Organ | None:
    """None where a class is absent."""
    boxes = ndimage.find_objects(labels, max_label=max(values))
    if any(boxes[value - 1] is None for value in values):
        return None
    pairs = zip(*(boxes[value - 1] for value in values), strict=True)
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
    slices = np.moveaxis(labels[box], axis, 0)
    masks = [slices == value for value in values]
    both = masks[0] | masks[1]
    below, above = (np.cumsum([0, *mask.sum((1, 2))]) for mask in masks)
    right = below + above[-1] - above  # voxels, where slice k is the first of the upper class
    area = both.sum((1, 2))
    cm = np.delete(spacing_zyx_mm, axis) / 10
    sides = [both.any(other).sum(1) * cm[2 - other] for other in (2, 1)]
    middles = np.arange(len(slices)) + 0.5
    points = (np.arange(POINTS) + 0.5) * len(slices) / POINTS
    profile = [np.interp(points, middles, row) for row in (area / area.mean(), *sides)]
    return _Organ(
        box[axis].start, len(slices), int(right.argmax()) / len(slices), np.concatenate(profile)
    )


def _mean_place(cases: Sequence[PreparedCase], value: int, axis: int) -> float:
    """Of a class, in voxels."""
    found = [case.foreground[value][:, axis].mean() for case in cases if value in case.foreground]
    return float(np.mean(found)) if found else 0.0
