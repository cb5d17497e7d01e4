"""Blobs on grids of every orientation, and their place told by SimpleITK rather than by us."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import LabelVolume

Blob = Callable[[Grid], LabelVolume]
Centre = Callable[[LabelVolume], NDArray[np.float64]]


@pytest.fixture(params=["oblique", "identity", "flipped", "permuted"])
def any_grid(request: pytest.FixtureRequest, oblique: Grid) -> Grid:
    directions = {
        "oblique": oblique.direction_lps,
        "identity": (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
        "flipped": (-1.0, 0, 0, 0, 1, 0, 0, 0, -1),
        "permuted": (0, 0, 1.0, -1, 0, 0, 0, 1, 0),
    }
    return Grid(
        oblique.shape_zyx, oblique.spacing_zyx_mm, (40.0, -25.0, 110.0), directions[request.param]
    )


@pytest.fixture
def blob() -> Blob:
    """An ellipsoid off the centre, long along the image's x axis."""

    def make(grid: Grid) -> LabelVolume:
        index = np.indices(grid.shape_zyx) * np.reshape(grid.spacing_zyx_mm, (3, 1, 1, 1))
        middle = np.multiply(grid.shape_zyx, grid.spacing_zyx_mm) / 2 + [3.0, -2.0, 4.0]
        radii = np.array([14.0, 10.0, 18.0])
        inside = (((index.T - middle) / radii) ** 2).sum(-1).T < 1
        return LabelVolume(inside.astype(np.uint8), grid)

    return make


@pytest.fixture
def centre() -> Centre:
    """Where the centre of mass of a label lies in the patient, in mm."""

    def measure(labels: LabelVolume) -> NDArray[np.float64]:
        image = sitk.GetImageFromArray(labels.array)
        image.SetOrigin(labels.grid.origin_lps_mm)
        image.SetSpacing(labels.grid.spacing_zyx_mm[::-1])
        image.SetDirection(labels.grid.direction_lps)
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        return np.array(shape.GetCentroid(1))

    return measure
