"""How well a predicted label volume agrees with the reference, class by class.

Background is no class. Where a class is empty:

- in both volumes: it is *absent*; Dice, HD95 and surface Dice are None and enter no mean;
- unlabelled in this case: the same, and its volume in the reference is 0;
- in one of the two: Dice and surface Dice are 0, HD95 is the diagonal of the volume, the largest
  distance that two of its points can have.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from surface_distance import metrics as surfaces

from u2net_platform.domains.spec import IGNORED
from u2net_platform.imaging.grid import Spacing


@dataclass(frozen=True)
class ClassScores:
    """Agreement about one class of one case; Dice and surface Dice lie in 0..1."""

    dice: float | None
    hd95_mm: float | None
    surface_dice: float | None
    reference_ml: float
    predicted_ml: float


def score_case(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    class_names: tuple[str, ...],
    spacing_zyx_mm: Spacing,
    tolerance_mm: float,
    hidden: Collection[int] = (),
) -> dict[str, ClassScores]:
    """Scores of every class; entry k of `class_names` is the value k + 1 of both volumes (z y x).

    HD95 is the larger of the two directed 95th percentiles of distances between the surfaces,
    weighted by area. Voxels that the reference ignores count for nothing; `hidden` are the values
    of classes that are unlabelled in this case. Surface Dice is the part of both surfaces within
    `tolerance_mm` of the other.

    Source: Dice 1945; Nikolov et al. 2021, J Med Internet Res 23(7), surface Dice and its
    implementation, the package surface-distance.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {prediction.shape}")
    known = reference != IGNORED
    voxel_ml = math.prod(spacing_zyx_mm) / 1000
    scores = {}
    for value, name in enumerate(class_names, start=1):
        predicted = (prediction == value) & known
        if value in hidden:
            scores[name] = ClassScores(None, None, None, 0.0, int(predicted.sum()) * voxel_ml)
        else:
            scores[name] = _score_class(reference == value, predicted, spacing_zyx_mm, tolerance_mm)
    return scores


def dice_by_class(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    classes: int,
    hidden: Collection[int] = (),
) -> dict[int, float]:
    """Dice in 0..1 of each foreground class that is in either volume, out of `classes`."""
    found = {}
    known = reference != IGNORED
    for value in set(range(1, classes)) - set(hidden):
        mine, theirs = reference == value, (prediction == value) & known
        if total := int(mine.sum()) + int(theirs.sum()):
            found[value] = 2 * int((mine & theirs).sum()) / total
    return found


def _score_class(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_zyx_mm: Spacing,
    tolerance_mm: float,
) -> ClassScores:
    voxel_ml = math.prod(spacing_zyx_mm) / 1000
    sizes = int(reference.sum()), int(prediction.sum())
    volumes_ml = sizes[0] * voxel_ml, sizes[1] * voxel_ml
    if not any(sizes):
        return ClassScores(None, None, None, *volumes_ml)
    if not all(sizes):
        diagonal_mm = math.hypot(*np.multiply(reference.shape, spacing_zyx_mm))
        return ClassScores(0.0, diagonal_mm, 0.0, *volumes_ml)
    distances = surfaces.compute_surface_distances(reference, prediction, spacing_zyx_mm)
    return ClassScores(
        2 * int((reference & prediction).sum()) / sum(sizes),
        float(surfaces.compute_robust_hausdorff(distances, 95)),
        float(surfaces.compute_surface_dice_at_tolerance(distances, tolerance_mm)),
        *volumes_ml,
    )
