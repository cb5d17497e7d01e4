"""DICOM series as volumes: which one of a folder is meant, and whether its slices make a volume.

Of each file only what is named in `READ` is looked at, so that no message holds who the patient is.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom
from pydicom.pixels.decoders.base import get_decoder

from u2net_platform.errors import (
    AmbiguousSeries,
    InvalidHeader,
    NoDicom,
    NoImageData,
    UnreadableImage,
    UnsupportedCompression,
    UnsupportedMultiFrame,
)
from u2net_platform.imaging.slices import (
    check_alike,
    check_places,
    fault_of_place,
    is_localizer,
    normal_of,
    numbers,
)
from u2net_platform.imaging.volume import (
    COPIES,
    FLOAT_BYTES,
    ImageVolume,
    require_utf8,
    volume_from_sitk,
)

READ = """
    StudyInstanceUID SeriesInstanceUID SeriesDescription Modality ImageType NumberOfFrames
    SamplesPerPixel BitsAllocated Rows Columns PixelSpacing ImageOrientationPatient
    ImagePositionPatient PhotometricInterpretation PixelRepresentation RescaleSlope
    FrameOfReferenceUID SOPInstanceUID ModalityLUTSequence
""".split()  # noqa: SIM905
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
DICOM_MODALITIES = {"MR": "MR", "CT": "CT", "PET": "PT", "US": "US"}
# Of 1 - cosine: tells a tilt of 0.2 degrees from places that are rounded to 4 digits.
PERPENDICULAR = 1e-6
FRAME_BYTES = 13  # a voxel, while highdicom puts frames together; measured
# What GDCM, as SimpleITK has it, decodes.
DECODED = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.RLELossless,
    }
)


@dataclass(frozen=True)
class Series:
    """The files of one series: of each what is named in `READ`, and its path as `filename`."""

    uid: str
    headers: tuple[pydicom.Dataset, ...]

    @property
    def modality(self) -> str:
        return str(self.headers[0].get("Modality", ""))

    @property
    def study(self) -> str:
        """UID of the examination that it is of."""
        return str(self.headers[0].get("StudyInstanceUID", ""))

    @property
    def is_multi_frame(self) -> bool:
        return any(int(header.get("NumberOfFrames") or 1) > 1 for header in self.headers)

    @property
    def reading_bytes(self) -> int:
        """What is held at most while the voxels that the headers promise are read."""
        voxels = sum(
            int(one.get("NumberOfFrames") or 1)
            * int(one.get("Rows") or 0)
            * int(one.get("Columns") or 0)
            for one in self.headers
        )
        return (FRAME_BYTES if self.is_multi_frame else COPIES * FLOAT_BYTES) * voxels

    @property
    def has_images(self) -> bool:
        """Whether it holds more than localizers, labels, and what is not to be seen."""
        images = (_has_pixels(one) and not is_localizer(one) for one in self.headers)
        return self.modality != "SEG" and any(images)

    @property
    def is_volume(self) -> bool:
        """Whether it holds parallel slices in shades of grey, localizers left out.

        Raises:
            UnreadableImage: a value of a header is none of its kind.
        """
        slices = [header for header in self.headers if not is_localizer(header)]
        try:
            return (
                (len(slices) > 1 or self.is_multi_frame)
                and all(_has_pixels(one) and one.get("SamplesPerPixel") == 1 for one in slices)
                and len({tuple(np.round(normal_of(one), 2)) for one in slices}) == 1
            )
        except Exception as error:  # pydicom reads a value when it is asked for
            raise UnreadableImage(
                f"a header of series {self.uid} cannot be read: {type(error).__name__}",
                "Export it again; it may be damaged.",
            ) from error

    def __str__(self) -> str:
        """One line for a list to choose from."""
        first = self.headers[0]
        slices = sum(int(header.get("NumberOfFrames") or 1) for header in self.headers)
        spacing = " x ".join(f"{side:g}" for side in numbers(first, "PixelSpacing")) or "unknown"
        if len(self.headers) > 1 and not any(map(fault_of_place, self.headers)):
            places = np.sort([normal_of(first) @ one.ImagePositionPatient for one in self.headers])
            spacing = f"{np.median(np.diff(places)):.3g} x {spacing}"
        return (
            f"{self.uid}: {first.get('SeriesDescription') or 'no description'},"
            f" {self.modality or 'no modality'}, {slices} slices, {spacing} mm"
        )


def holds_dicom(folder: Path) -> bool:
    """Whether there is a DICOM file in the folder, or beneath it."""
    return any(map(is_dicom, _files(folder)))


def find_series(folder: Path) -> list[Series]:
    """Every series whose files lie in the folder or beneath it, in the order of its first file.

    Raises:
        NoDicom: there is none.
        UnreadableImage: a file begins as DICOM and cannot be read; it is named.
    """
    found = _grouped(map(_header, _files(folder)))
    if not found:
        raise NoDicom(f"{folder} holds no DICOM file", "Give the folder with the series' files.")
    return found


def find_studies(folder: Path, modality: str) -> tuple[list[Path], list[Path]]:
    """The folders in this one to label one by one, and what is left out, both sorted.

    To label are those of each study with images of a domain's modality, be they fit or not; where
    there are several, also those with files that cannot be read: whoever reads them says why. Where
    studies share a folder, or one lies in that of another, it is one.
    """
    headers, others = [], set[Path]()
    broken = set[Path]()
    for path in _files(folder):
        try:
            headers.append(_header(path))
        except UnreadableImage:
            broken.add(path)
    series, wanted = _grouped(headers), DICOM_MODALITIES.get(modality)
    fitting = {one.study for one in series if wanted in (None, one.modality) and one.has_images}
    places: defaultdict[str, set[Path]] = defaultdict(set)
    for one in series:
        parents = {Path(str(header.filename)).parent for header in one.headers}
        if one.study in fitting and one.has_images:
            places[one.study] |= parents
        else:
            others |= parents
    found = {Path(os.path.commonpath(list(map(str, each)))) for each in places.values()}
    found = {one for one in found if not found & {*one.parents}}
    if len(found) > 1:
        above = {parent for one in found for parent in one.parents}
        beside = {one.parent for one in broken if not found & {*one.parents}} - above
        found |= {one for one in beside if not beside & {*one.parents}}
    left = {one for one in others | broken if not found & {one, *one.parents}}
    return sorted(found), sorted(left)


def choose_series(folder: Path, modality: str | None = None, name: str | None = None) -> Series:
    """The series with the UID `name`, else the only one that is a volume of a domain's modality.

    Raises:
        NoDicom, UnreadableImage: as `find_series`.
        NoImageData: no series, or not the one named, holds an image.
        AmbiguousSeries: the choice is not clear; the message lists all series.
    """
    series = find_series(folder)
    chosen = [one for one in series if one.uid == name] if name else series
    images = [one for one in chosen if any(map(_has_pixels, one.headers))]
    if chosen and not images:
        raise NoImageData(
            f"{folder} holds no image, but only {', '.join(one.modality for one in chosen)}",
            "Export the images themselves as well.",
        )
    wanted = None if name else DICOM_MODALITIES.get(modality or "")
    fitting = [one for one in images if wanted in (None, one.modality)]
    volumes = [one for one in fitting if one.is_volume]
    # Where there is but one, its reader says what keeps it from being a volume.
    for candidates in (volumes, fitting):
        if len(candidates) == 1:
            return candidates[0]
    what = f"volumes of modality {wanted}" if wanted else f"series {name}" if name else "volumes"
    listing = "\n".join(f"  {one}" for one in series)
    raise AmbiguousSeries(
        f"{folder} holds {len(volumes) or 'no'} {what}, but:\n{listing}",
        "Name the right one: --series UID"
        + "; or give each study a folder of its own" * (len({one.study for one in series}) > 1),
    )


def read_series(series: Series) -> ImageVolume:
    """One channel, c z y x: slices along their normal, intensities rescaled (HU for CT).

    Raises:
        NoImageData, UnsupportedCompression, UnreadableImage: its files hold no such image.
        UnsupportedMultiFrame, SingleSlice, MissingPosition, InvalidHeader, LocalizerMixedIn,
        MixedSlices, MixedSliceSizes, MixedOrientations, DuplicateSlices, UnevenSlices, GantryTilt:
            its slices make no volume.
    """
    _check_pixels(series)
    if series.is_multi_frame:
        return volume_from_sitk(_read_frames(series), series.uid)
    slices, reader = sorted_slices(series), sitk.ImageSeriesReader()
    reader.SetFileNames([str(header.filename) for header in slices])
    # Slope and intercept may differ between slices: whole numbers could not hold them all.
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        return volume_from_sitk(_placed(reader.Execute(), slices), series.uid)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise UnreadableImage(
            f"series {series.uid} cannot be read: {last}", "Export it again; it may be damaged."
        ) from error


def sorted_slices(series: Series) -> list[pydicom.Dataset]:
    """The headers of a classic series in the order of `read_series`.

    Raises:
        SingleSlice, MissingPosition, InvalidHeader, LocalizerMixedIn, MixedSlices,
        MixedSliceSizes, MixedOrientations, DuplicateSlices, UnevenSlices, GantryTilt: the slices
            make no volume.
    """
    name, normal = f"series {series.uid}", normal_of(series.headers[0])
    check_alike(series.headers, name)
    slices = sorted(series.headers, key=lambda header: float(normal @ header.ImagePositionPatient))
    check_places(slices, name)
    return slices


def _placed(image: Any, slices: Sequence[pydicom.Dataset]) -> Any:
    """An image where its headers say. GDCM does not look in some kinds of object, as XA and NM."""
    first, normal = slices[0], normal_of(slices[0])
    row, column = numbers(first, "ImageOrientationPatient").reshape(2, 3)
    origin, end = (numbers(one, "ImagePositionPatient") for one in (first, slices[-1]))
    normal /= np.linalg.norm(normal)
    height, width = numbers(first, "PixelSpacing")
    image.SetSpacing([width, height, normal @ (end - origin) / (len(slices) - 1)])
    image.SetOrigin(origin.tolist())
    image.SetDirection(np.column_stack([row, column, normal]).ravel().tolist())
    return image


@contextmanager
def discreet() -> Iterator[None]:
    """Keep both libraries from warning of values and logging them: they may be the patient's."""
    with warnings.catch_warnings(action="ignore"), disable_value_validation():
        yield


def _files(folder: Path) -> list[Path]:
    """Those in a folder and beneath it, where links lead too, each folder once."""
    found, seen = [], set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(place, name) for name in names]
    return sorted(path for path in found if path.is_file())


def _grouped(headers: Iterable[pydicom.Dataset | None]) -> list[Series]:
    series = defaultdict(list)
    for header in headers:
        if header is not None and "SeriesInstanceUID" in header:  # a DICOMDIR has none
            series[str(header.SeriesInstanceUID)].append(header)
    return [Series(name, tuple(found)) for name, found in series.items()]


def _header(path: Path) -> pydicom.Dataset | None:
    if path.name == "DICOMDIR":
        return None
    try:
        with discreet():
            # Pixels are skipped, but it is seen that they are there.
            header = pydicom.dcmread(path, defer_size=1024, specific_tags=[*READ, *PIXELS])
        if not header:  # what pydicom makes of a file that is cut off within its frames
            raise EOFError
        return header
    except InvalidDicomError:
        return None
    except Exception as error:  # a damaged file may raise anything
        raise UnreadableImage(
            f"{path} cannot be read: {type(error).__name__}", "Export it again; it may be damaged."
        ) from error


def _has_pixels(header: pydicom.Dataset) -> bool:
    return any(keyword in header for keyword in PIXELS)


def _check_pixels(series: Series) -> None:
    name = f"series {series.uid}"
    empty = [header for header in series.headers if not _has_pixels(header)]
    if empty:
        raise NoImageData(
            f"{empty[0].filename} of {name} holds no image data", "Export it again, with pixels."
        )
    if any(header.get("SamplesPerPixel", 1) != 1 for header in series.headers):
        raise UnreadableImage(f"{name} is in colour", "Export the series that it was made from.")
    for header in series.headers:
        require_utf8(Path(str(header.filename)))
        inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
        if inverted or "ModalityLUTSequence" in header:
            raise InvalidHeader(
                f"{header.filename} of {name} has values that stand for others"
                f" ({'MONOCHROME1' if inverted else 'ModalityLUTSequence'})",
                "Export the series again, with values that a slope and an intercept rescale.",
            )
        syntax = _syntax(header, name)
        decoded = syntax in DECODED
        if series.is_multi_frame:  # which pydicom's decoders read, of which not all are here
            decoded = decoded and bool(get_decoder(syntax).is_available)
        if not decoded:
            frames = " in frames" if series.is_multi_frame else ""
            raise UnsupportedCompression(
                f"{header.filename} is compressed as {syntax.name}, which is not read{frames}",
                "Export it uncompressed.",
            )
        if not syntax.is_compressed and _length(header) < _promised(header):
            raise UnreadableImage(
                f"{header.filename} has fewer pixels than it promises", "Export it again."
            )


def _syntax(header: pydicom.Dataset, name: str) -> uid.UID:
    """The transfer syntax of a header that says what its pixels are."""
    needed = {keyword: header.get(keyword) for keyword in ("Rows", "Columns", "BitsAllocated")}
    needed["TransferSyntaxUID"] = header.file_meta.get("TransferSyntaxUID")
    for keyword, value in needed.items():
        if not value:
            raise InvalidHeader(
                f"{header.filename} of {name} lacks {keyword}", "Export the series again."
            )
    return uid.UID(needed["TransferSyntaxUID"])


def _length(header: pydicom.Dataset) -> int:
    """Bytes of pixels in the file; GDCM puts zeros for those that are missing."""
    found: Any = next(
        header.get_item(name, keep_deferred=True) for name in PIXELS if name in header
    )
    return int(found.length)


def _promised(header: pydicom.Dataset) -> int:
    frames = int(header.get("NumberOfFrames") or 1)
    return int(header.Rows * header.Columns * header.BitsAllocated // 8 * frames)


def _read_frames(series: Series) -> Any:
    """An enhanced file. GDCM takes the first frame's slope for all; highdicom does not."""
    import highdicom

    path = Path(str(series.headers[0].filename))
    try:
        if len(series.headers) > 1:
            raise ValueError(f"{len(series.headers)} files of frames are no one volume")
        with discreet():
            frames = highdicom.imread(path).get_volume(
                dtype=np.float32,
                # Slope and intercept alone, as of a classic series; and no tilted gantry.
                apply_real_world_transform=False,
                apply_presentation_lut=False,
                perpendicular_tol=PERPENDICULAR,
            )
    except Exception as error:  # pydicom's decoders raise whatever they like
        raise UnsupportedMultiFrame(
            f"{path} holds frames that cannot be put together: {[*str(error).splitlines(), ''][0]}",
            "Export it as a classic series with one file a slice.",
        ) from error
    # highdicom's first axis is z, SimpleITK's is x.
    return frames.permute_spatial_axes((2, 1, 0)).to_simpleitk()
