"""From a file to a file, wherever and however the image lies in space. The image is written, the
place of its voxels told, and the labels read by SimpleITK alone, as an oracle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from u2net_platform.domains.spec import Statistics
from u2net_platform.imaging.volume import FILE_ENDINGS, read_image, write_labels
from u2net_platform.inference.predictor import Predictor

THIN = 3  # voxels; along such an axis the organ goes from end to end
EDGE = 100 + 1000 / np.e  # of the organ: where its bell of intensities has fallen to 1/e
# Wide, so that the network's scores are nearly linear in the intensities: then the surface is found
# between the voxels, and an error of a part of a voxel shows.
STD = 40_000.0
STATISTICS = Statistics(mean=EDGE - STD, std=STD, low=0, high=2000)


@dataclass(frozen=True)
class Geometry:
    """An image's grid, x y z; the plan's spacing along its axes and along the patient's; where the
    organ's centre lies within the image, as parts of its sides; voxels of zeros at the ends."""

    size: tuple[int, ...]
    spacing: NDArray[np.float64]
    origin: tuple[float, ...]
    direction: NDArray[np.float64]
    planned: NDArray[np.float64]
    planned_lps: NDArray[np.float64]
    middle: NDArray[np.float64]
    zeros: tuple[tuple[int, int], ...]


def three(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(values, values, values)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    size = draw(three(st.integers(1, THIN) | st.integers(11, 24)))
    assume(max(size) > THIN)  # the organ has an edge
    spacing = np.array(draw(three(st.floats(0.4, 6))))
    planned = spacing * draw(three(st.sampled_from([0.5, 1, 1.7, 2.3])))
    order = draw(st.permutations(range(3)))  # entry k is the image axis along patient axis k
    axes = np.zeros((3, 3))
    axes[range(3), order] = draw(three(st.sampled_from([-1, 1])))
    axis = np.array(draw(three(st.integers(-3, 3))))
    # Below 45 degrees no other axis of the image becomes the nearest to the patient's.
    angle = draw(st.sampled_from([0, 0.01, 12, 40]))
    turn = Rotation.from_rotvec(axis / max(1, np.linalg.norm(axis)) * angle, degrees=True)
    return Geometry(
        size,
        spacing,
        draw(three(st.floats(-500, 500))),
        turn.as_matrix() @ axes,
        planned,
        planned[list(order)],
        np.array(draw(three(st.sampled_from([0.4, 0.6])))),  # never where a flip would leave it
        draw(three(st.tuples(st.integers(0, 1), st.integers(0, 1)))),
    )


def draw_organ(geometry: Geometry) -> tuple[sitk.Image, NDArray[np.bool_], NDArray[np.float64]]:
    """The image, where the organ is in it (z y x), and the place of each voxel, mm along the
    image's axes (z y x 3)."""
    size = np.array(geometry.size)
    points = sitk.GetArrayFromImage(
        sitk.PhysicalPointSource(
            sitk.sitkVectorFloat64,
            geometry.size,
            geometry.origin,
            geometry.spacing.tolist(),
            geometry.direction.ravel().tolist(),
        )
    )
    points = points @ geometry.direction
    first, side = points[0, 0, 0], size * geometry.spacing
    centre = first + geometry.middle * side - geometry.spacing / 2
    apart = ((points - centre) / (side / 4) * (size > THIN)) ** 2
    array = 100 + 1000 * np.exp(-apart.sum(-1))
    held = [
        slice(low, None if n <= THIN else n - high) if n > THIN else slice(None)
        for n, (low, high) in zip(geometry.size, geometry.zeros, strict=True)
    ]
    inside = np.zeros_like(array)
    inside[tuple(held[::-1])] = 1
    image = sitk.GetImageFromArray((array * inside).astype(np.float32))
    image.SetSpacing(geometry.spacing.tolist())
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction.ravel().tolist())
    return image, array * inside > EDGE, points


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # no example changes them
)
@given(geometry=geometries(), endings=st.tuples(*[st.sampled_from(FILE_ENDINGS)] * 2))
def test_labels_lie_on_the_input_s_grid_and_on_the_organ(
    geometry: Geometry, endings: tuple[str, str], bright_predictor: Predictor, tmp_path: Path
) -> None:
    image, organ, points = draw_organ(geometry)
    folder = Path(
        tempfile.mkdtemp(dir=tmp_path)
    )  # of a.nii and a.nii.gz, SimpleITK reads the first
    source, target = (folder / f"{k}{ending}" for k, ending in enumerate(endings))
    sitk.WriteImage(image, str(source))
    z, y, x = geometry.planned_lps[::-1].tolist()
    plan = bright_predictor.plan.model_copy(
        update={"spacing_zyx_mm": (z, y, x), "statistics": (STATISTICS,)}
    )
    predictor = Predictor(
        bright_predictor.network, bright_predictor.plugin, plan, bright_predictor.device
    )
    write_labels(target, predictor.predict(read_image([source])), ("organ",))

    labels = sitk.ReadImage(str(target))
    assert labels.GetSize() == image.GetSize()
    assert labels.GetSpacing() == pytest.approx(image.GetSpacing(), rel=1e-5)
    assert labels.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-4)
    assert labels.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-5)
    found = sitk.GetArrayFromImage(labels) == 1
    coarser = np.maximum(geometry.spacing, geometry.planned)
    off = np.abs(points[found].mean(0) - points[organ].mean(0)) / coarser
    longer = np.abs(np.ptp(points[found], 0) - np.ptp(points[organ], 0)) / coarser

    # Half a voxel of the coarser grid for the middle, one for each surface.
    assert (off < 0.5).all()
    assert (longer < 2.01).all()
