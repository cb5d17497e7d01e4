"""Whether the slices of a DICOM series make a volume: what each header says, and all together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pydicom
from numpy.typing import NDArray

from u2net_platform.errors import (
    DuplicateSlices,
    GantryTilt,
    InvalidHeader,
    LocalizerMixedIn,
    MissingPosition,
    MixedOrientations,
    MixedSlices,
    MixedSliceSizes,
    SingleSlice,
    UnevenSlices,
)
from u2net_platform.imaging.grid import SAME_GRID_TOLERANCE

POSITION = {"PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}
# What all slices of a volume share; where one differs, it is another image or is stored otherwise.
SHARED = ("Modality", "PhotometricInterpretation", "PixelRepresentation", "FrameOfReferenceUID")
SAME_DIRECTION = 1e-3  # of cosines: headers round, and 0.06 degrees turn no organ


def _has_position(header: pydicom.Dataset) -> bool:
    return all(header.get(keyword) for keyword in POSITION)


def numbers(header: pydicom.Dataset, keyword: str) -> NDArray[np.float64]:
    """The values of an attribute; none where they are no numbers."""
    try:
        return np.atleast_1d(np.array(header.get(keyword) or (), float))
    except (TypeError, ValueError):
        return np.empty(0)


def fault_of_place(header: pydicom.Dataset) -> str | None:
    """The attribute that cannot be the place of a slice."""
    for keyword, length in POSITION.items():
        values = numbers(header, keyword)
        if len(values) != length or not np.isfinite(values).all():
            return keyword
    if numbers(header, "PixelSpacing").min() <= 0:
        return "PixelSpacing"
    axes = numbers(header, "ImageOrientationPatient").reshape(2, 3)
    skewed = np.abs(axes @ axes.T - np.eye(2)).max() > 10 * SAME_DIRECTION
    return "ImageOrientationPatient" if skewed else None


def is_localizer(header: pydicom.Dataset) -> bool:
    return "LOCALIZER" in (header.get("ImageType") or ())


def normal_of(header: pydicom.Dataset) -> NDArray[np.float64]:
    """The direction across the slice; zeros where the header does not tell (multi-frame)."""
    values = numbers(header, "ImageOrientationPatient")
    row, column = (values if len(values) == 6 else np.zeros(6)).reshape(2, 3)
    return np.cross(row, column)


def check_alike(headers: Sequence[pydicom.Dataset], name: str) -> None:
    """Whether slices are of one kind, size and orientation, and each has a place.

    Raises:
        LocalizerMixedIn, SingleSlice, DuplicateSlices, MissingPosition, InvalidHeader, MixedSlices,
        MixedSliceSizes, MixedOrientations: naming a file; `name` says of which series.
    """
    first = headers[0]
    scouts = [header for header in headers if is_localizer(header)]
    if 0 < len(scouts) < len(headers):
        raise LocalizerMixedIn(
            f"{name} holds localizers among its slices, as {scouts[0].filename}",
            "Take these files out of the folder.",
        )
    if len(headers) == 1:
        raise SingleSlice(f"{name} has a single slice", "Export all of its slices.")
    if len({header.get("SOPInstanceUID") for header in headers}) < len(headers):
        raise DuplicateSlices(
            f"{name} has two files of the same SOPInstanceUID", "Take one out, or export it again."
        )
    for header in headers:
        if not _has_position(header):
            raise MissingPosition(
                f"{header.filename} of {name} does not tell where its slice lies",
                "Export the original series rather than a secondary capture.",
            )
        _check_header(header, first, name)
        if not _same_size(first, header):
            raise MixedSliceSizes(
                f"{name} holds slices of {_size(first)} and of {_size(header)},"
                f" as {header.filename}",
                "Export the slices of one size as a series of their own.",
            )
        turned = np.subtract(header.ImageOrientationPatient, first.ImageOrientationPatient)
        if np.abs(turned).max() > SAME_DIRECTION:
            raise MixedOrientations(
                f"{name} holds slices of several orientations, as {first.filename} and"
                f" {header.filename}",
                "Export each orientation as a series of its own.",
            )


def _check_header(header: pydicom.Dataset, first: pydicom.Dataset, name: str) -> None:
    what = fault_of_place(header)
    slope = numbers(header, "RescaleSlope")
    if "RescaleSlope" in header and not (len(slope) == 1 and np.isfinite(slope[0]) and slope[0]):
        what = "RescaleSlope"
    if what:
        raise InvalidHeader(
            f"{header.filename} of {name} has a {what} that no slice of a volume can have",
            "Correct the header, or export the series again.",
        )
    for keyword in SHARED:
        if header.get(keyword) != first.get(keyword):
            raise MixedSlices(
                f"{name} holds slices that differ in {keyword}, as {first.filename} and"
                f" {header.filename}",
                "Export each kind as a series of its own.",
            )


def _same_size(first: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    """Whether two slices have as many pixels, the last of which lie at the same place."""
    shape = np.array([first.Rows, first.Columns])
    pixel, own = (numbers(one, "PixelSpacing") for one in (first, other))
    moved = np.abs(own - pixel) * (shape - 1)
    return bool(
        (shape == [other.Rows, other.Columns]).all()
        and moved.max() <= SAME_GRID_TOLERANCE * pixel.min()
    )


def _size(header: pydicom.Dataset) -> str:
    row, column = header.PixelSpacing
    return f"{header.Rows} x {header.Columns} pixels of {row} x {column} mm"


def check_places(slices: Sequence[pydicom.Dataset], name: str) -> None:
    """Whether sorted slices lie evenly along a line that is their normal.

    Raises:
        DuplicateSlices, UnevenSlices, GantryTilt
    """
    normal = normal_of(slices[0])
    points = np.array([header.ImagePositionPatient for header in slices], float)
    along = points @ normal
    gaps, even = np.diff(along), np.linspace(along[0], along[-1], len(slices))
    allowed = SAME_GRID_TOLERANCE * float(np.median(gaps))
    # Where a series holds everything twice, the median itself is 0.
    same = np.flatnonzero(gaps <= SAME_GRID_TOLERANCE * float(gaps.max()))
    if len(same):
        raise DuplicateSlices(
            f"{name} has {len(same)} slices that lie where another does, as"
            f" {slices[same[0]].filename} and {slices[same[0] + 1].filename}",
            "Take copies out; export phases, echoes or diffusion weightings as series of their"
            " own.",
        )
    if np.abs(along - even).max() > allowed:
        widest = int(gaps.argmax())
        raise UnevenSlices(
            f"{name} has gaps of {gaps.min():.4g} to {gaps.max():.4g} mm between its slices, the"
            f" widest between {slices[widest].filename} and {slices[widest + 1].filename}",
            "Export it again with every slice, or resample it to even slices.",
        )
    aside = points - points[0] - np.outer(along - along[0], normal)
    pixel = min(map(float, slices[0].PixelSpacing))
    if np.linalg.norm(aside, axis=1).max() > SAME_GRID_TOLERANCE * pixel:
        drift = float(np.linalg.norm(aside[-1]))
        angle = np.degrees(np.arctan2(drift, along[-1] - along[0]))
        raise GantryTilt(
            f"the slices of {name} are stacked at an angle of {angle:.2g} degrees to their normal"
            f" ({drift:.3g} mm from first to last), as with a tilted gantry",
            "Straighten it with dcm2niix, which resamples it, and give the NIfTI file.",
        )
