"""Volumes with their place in physical space, and the files that hold them.

This is the one module that turns between SimpleITK's x, y, z and the z, y, x of everything else.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from u2net_platform.errors import (
    MissingFile,
    NotWritable,
    UnexpectedLabel,
    UnreadableImage,
    UnsupportedFormat,
)
from u2net_platform.files import atomic_path, sync
from u2net_platform.imaging.grid import Grid, Spacing, orientation, triple
from u2net_platform.imaging.nifti import (
    NIFTI_ENDINGS,
    check_nifti,
    contradiction_mm,
    copy_place,
    places_by_sform,
    sform_steps_mm,
    unreadable,
)

FILE_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha")
# ITK writes remarks on harmless headers to stderr; faults come as exceptions all the same.
sitk.ProcessObject.SetGlobalWarningDisplay(False)
# Without it ITK takes a NIfTI file's qform in silence where its sform is skewed.
os.environ["ITK_NIFTI_SFORM_PERMISSIVE"] = "1"

ROUNDING = 1e-3  # of a direction's parts; NIfTI and DICOM round them
FLOAT_BYTES = 4  # of an intensity
COPIES = 2  # while reading: SimpleITK's and ours, or channels and all of them joined
LARGEST_SKEW = 0.02  # 2 %: 5 mm across a body; less is repaired


@dataclass(frozen=True)
class ImageVolume:
    """Intensities, c z y x."""

    array: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True)
class LabelVolume:
    """One class or source value per voxel, z y x."""

    array: NDArray[np.uint8]
    grid: Grid


Volume = TypeVar("Volume", ImageVolume, LabelVolume)
Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True)
class Header:
    """What a file promises. values: voxels times channels. reading_bytes: what is held at most
    while it is read. skewed: its axes are not quite at right angles, and are read as the nearest
    that are. contradiction_mm: how far apart its corners lie by NIfTI's two ways to say where, if
    both claim to mean the same; else 0. by_sform: whether it is read by the first of them."""

    values: int
    reading_bytes: int
    spacing_zyx_mm: Spacing
    skewed: bool
    contradiction_mm: float
    by_sform: bool


def read_header(path: Path) -> Header | None:
    """A file's size and spacing without its voxels; None if it cannot be read, or is a folder."""
    if path.is_dir():  # of which ITK would complain to stderr
        return None
    reader = sitk.ImageFileReader()
    try:
        with _alone(path) as file:
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
            stored = sitk.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    except (RuntimeError, UnreadableImage):
        return None
    if reader.GetDimension() < 3:
        return None
    values = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    return Header(
        values,
        reading_bytes=COPIES * values * max(stored, FLOAT_BYTES),
        spacing_zyx_mm=_spacing_zyx_mm(reader),
        skewed=_skew(reader) > ROUNDING,
        contradiction_mm=contradiction_mm(reader),
        by_sform=places_by_sform(reader),
    )


def one_thread() -> None:
    """From now on in this process, filters work in one thread: others have the processors."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def read_image(paths: Sequence[Path]) -> ImageVolume:
    """Read one file (3-D; 4-D with channels as the last axis; or vector voxels), or one a channel.

    A folder stands for the one DICOM series in it that is a volume.

    Raises:
        MissingFile, UnsupportedFormat, UnreadableImage: naming the file.
        NonFiniteImage: a NIfTI file holds NaN or infinity.
        GeometryMismatch: two channels do not share a grid.
        DataError: what `imaging.dicom` finds wrong with a folder.
    """
    return joined([_read_channels(path) for path in paths], [str(path) for path in paths])


def joined(parts: Sequence[ImageVolume], names: Sequence[str]) -> ImageVolume:
    """The channels of all parts, on the grid of the first.

    Raises:
        GeometryMismatch: two do not share a grid; `names` says which.
    """
    first = parts[0]
    for name, part in zip(names[1:], parts[1:], strict=True):
        first.grid.require_match(part.grid, names[0], name)
    if len(parts) == 1:
        return first
    return replace(first, array=np.concatenate([part.array for part in parts]))


def _read_channels(path: Path) -> ImageVolume:
    if path.is_dir():
        from u2net_platform.imaging.dicom import choose_series, read_series

        return read_series(choose_series(path))
    array, grid = _read(path)
    return ImageVolume(array.astype(np.float32, copy=False), grid)


def read_labels(path: Path) -> LabelVolume:
    """Read a label file with its source values, which the domain's spec merges into classes.

    Raises:
        MissingFile, UnsupportedFormat, UnreadableImage: naming the file.
        UnexpectedLabel: a value is no whole number within 0..255.
    """
    array, grid = _read(path)
    if array.shape[0] != 1:
        raise UnreadableImage(
            f"{path} has {array.shape[0]} channels", "Give a label file with one."
        )
    with np.errstate(invalid="ignore"):
        labels = array[0].astype(np.uint8)
    if not np.array_equal(labels, array[0]):
        raise UnexpectedLabel(
            f"{path} holds values that are no whole numbers within 0..255",
            "Save the labels as 8-bit integers.",
        )
    return LabelVolume(labels, grid)


def write_labels(
    path: Path,
    labels: LabelVolume,
    names: Sequence[str],
    about: Mapping[str, object] = MappingProxyType({}),
    like: Path | None = None,
) -> None:
    """Write a label file whole or not at all, and beside it `<stem>.labels.json`: the name of each
    class, and what else is known `about` the labels.

    like: the file that the grid was read from. Of NIfTI the labels' header says where they lie in
        the same words.

    Raises:
        UnsupportedFormat: the ending is none of `FILE_ENDINGS`.
        NotWritable, DiskFull: with the file named; what was there before stays.
    """
    legend = legend_of(path)
    values = {str(value): name for value, name in enumerate(("background", *names))}
    with atomic_path(path) as temporary:
        _write_whole(temporary, path, labels.array[None], labels.grid, like)
        with atomic_path(legend) as words:
            words.write_text(json.dumps({"labels": values, **about}, indent=2) + "\n", "utf-8")
            for file in (temporary, words):
                sync(file)
            # No lack of room from here on. After a kill labels are never there without words, or
            # with those of others: they would be nobody knows whose, or be taken for done.
            path.unlink(missing_ok=True)


def legend_of(path: Path) -> Path:
    """The file that says what the values of a label file mean."""
    return path.with_name(f"{stem_of(path)}.labels.json")


def volumes_ml(labels: LabelVolume, names: Sequence[str]) -> dict[str, float]:
    """The volume of each class; `names` are those of class 1, 2, ..."""
    sizes = np.zeros(256, np.int64)
    for plane in labels.array:  # at once, counting would turn all into 64-bit numbers
        sizes += np.bincount(plane.ravel(), minlength=256)
    voxel_ml = math.prod(labels.grid.spacing_zyx_mm) / 1000
    return {name: round(sizes[k] * voxel_ml, 6) for k, name in enumerate(names, start=1)}


def write_array(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """Write channels (c z y x) whole or not at all: one as a 3-D file, several as a 4-D one.

    Raises:
        UnsupportedFormat, NotWritable, DiskFull: as `write_labels`.
    """
    stem_of(path)
    with atomic_path(path) as temporary:
        _write_whole(temporary, path, array, grid)


def _write_whole(
    temporary: Path, path: Path, array: NDArray[Any], grid: Grid, like: Path | None = None
) -> None:
    # The writers of some formats say nothing when the disk is full, hence the second look.
    try:
        _write(temporary, array, grid)
        if like and all(one.name.endswith(NIFTI_ENDINGS) for one in (like, path)):
            copy_place(like, temporary)
        found, _ = _read(temporary)
        # Plane by plane: a volume may be a large part of the memory that is allowed.
        planes = zip(chain(*found), chain(*array), strict=True)
        whole = all(np.array_equal(*pair) for pair in planes)
    except (RuntimeError, ValueError, UnreadableImage):
        whole = False
    if not whole:
        _claim(temporary, array.nbytes)
        raise NotWritable(f"{path} cannot be written", "Choose another place or format.")


def _write(path: Path, array: NDArray[Any], grid: Grid) -> None:
    channels = [to_sitk(channel, grid) for channel in array]
    image = sitk.JoinSeries(channels) if len(channels) > 1 else channels[0]
    sitk.WriteImage(image, str(path), useCompression=True)


def stem_of(path: Path) -> str:
    """The file's name without its ending.

    Raises:
        UnsupportedFormat: the ending is none of `FILE_ENDINGS`.
    """
    for ending in FILE_ENDINGS:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    raise UnsupportedFormat(
        f"{path} is no {', '.join(FILE_ENDINGS)} file",
        "Convert it to one. DICOM is given as the folder of its series.",
    )


def canonical(volume: Volume) -> Volume:
    """Flip and permute the axes to the orientation nearest to LPS; no voxel changes its place.

    The array is a view of the volume's.
    """
    grid, axes, flips = orientation(volume.grid)
    before = volume.array.ndim - 3  # 1 for c z y x
    array = volume.array.transpose(*range(before), *(axis + before for axis in axes))
    return replace(volume, array=np.flip(array, tuple(axis + before for axis in flips)), grid=grid)


def turned_back(array: NDArray[Element], target: Grid) -> NDArray[Element]:
    """Voxels (z y x) on the canonical grid of `target`, as they lie on `target` itself."""
    _, axes, flips = orientation(target)
    turned = np.flip(array, tuple(flips)).transpose(*np.argsort(axes))
    return np.ascontiguousarray(turned)


def to_sitk(array: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK image of one volume, z y x, on its grid."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_zyx_mm[::-1])
    image.SetOrigin(grid.origin_lps_mm)
    image.SetDirection(grid.direction_lps)
    return image


def volume_from_sitk(image: Any, name: str) -> ImageVolume:
    """The volume of a SimpleITK image: 3-D, or 4-D with channels as the last axis.

    Raises:
        UnreadableImage: it has other axes; `name` says which image.
    """
    array, grid = _from_sitk(image, name)
    return ImageVolume(array.astype(np.float32, copy=False), grid)


def resampled(image: Any, grid: Grid, interpolator: int, extrapolate: bool, outside: float) -> Any:
    """SimpleITK's resampling of a SimpleITK image onto a grid, in the image's own voxel type."""
    resample = sitk.ResampleImageFilter()
    resample.SetSize(grid.shape_zyx[::-1])
    resample.SetOutputSpacing(grid.spacing_zyx_mm[::-1])
    resample.SetOutputOrigin(grid.origin_lps_mm)
    resample.SetOutputDirection(grid.direction_lps)
    resample.SetInterpolator(interpolator)
    resample.SetUseNearestNeighborExtrapolator(extrapolate)
    resample.SetDefaultPixelValue(outside)
    return sitk.GetArrayFromImage(resample.Execute(image))


def _read(path: Path) -> tuple[NDArray[Any], Grid]:
    """A file's voxels as c z y x in its own number type, and its grid."""
    stem_of(path)
    if not path.is_file():
        raise MissingFile(f"{path} does not exist", "Correct the path.")
    try:
        with _alone(path) as file:
            image = sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise unreadable(path, str(error)) from error
    if path.name.endswith(NIFTI_ENDINGS):
        check_nifti(path, image)
    return _from_sitk(image, str(path))


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file under a name that no other shares: of `scan.nii` and `scan.nii.gz` side by side,
    ITK reads the first, whichever is asked for.

    Raises:
        UnreadableImage: as `require_utf8`.
    """
    require_utf8(path)
    if not (path.name.endswith(".nii.gz") and path.with_suffix("").exists()):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, path.name)
        link.symlink_to(path.resolve())
        yield link


def require_utf8(path: Path) -> None:
    """Stop before SimpleITK does, which ends the process at a name of another encoding.

    Raises:
        UnreadableImage
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UnreadableImage(
            f"{str(path)!a} is a name in another encoding than UTF-8", "Rename it."
        ) from error


def _from_sitk(image: Any, name: str) -> tuple[NDArray[Any], Grid]:
    array = sitk.GetArrayFromImage(image)
    dimensions, vector = image.GetDimension(), image.GetNumberOfComponentsPerPixel() > 1
    if dimensions == 3:
        array = np.moveaxis(array, -1, 0) if vector else array[np.newaxis]
    elif dimensions != 4 or vector:
        raise UnreadableImage(f"{name} has {dimensions} axes", "Give a volume with 3, or 4.")
    if np.iscomplexobj(array):
        raise UnreadableImage(
            f"{name} holds complex numbers, of which only one part would be seen",
            "Save the magnitude, as an MR scanner's images are, or another part of them.",
        )
    place = [*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]
    if not np.isfinite(place).all() or min(image.GetSpacing()) <= 0:
        raise UnreadableImage(
            f"{name} has a place or a spacing in its header that is no number above 0",
            "Correct the header, or export the file again.",
        )
    if _skew(image) > LARGEST_SKEW:
        raise UnreadableImage(
            f"{name} has axes that are not at right angles (a sheared header)",
            "Resample it onto axes at right angles, or correct the header (of NIfTI: its sform).",
        )
    directions = _at_right_angles(_directions(image))
    grid = Grid(
        shape_zyx=(array.shape[1], array.shape[2], array.shape[3]),
        spacing_zyx_mm=_spacing_zyx_mm(image),
        origin_lps_mm=triple(image.GetOrigin()[:3]),
        direction_lps=tuple(map(float, directions.ravel())),
    )
    return array, grid


def _directions(image: Any) -> NDArray[np.float64]:
    """The columns are the directions of x, y and z, as an image or a reader of one has them.

    Of a skewed sform they are its own: what ITK makes of one is no oblique image's nearest.
    """
    dimensions = image.GetDimension()
    found: NDArray[np.float64] = np.reshape(image.GetDirection(), (dimensions, dimensions))
    found = found[:3, :3]
    if (steps := sform_steps_mm(image)) is not None:
        own = np.asarray(steps / np.linalg.norm(steps, axis=0))
        if not np.abs(own - found).max() <= ROUNDING:
            return own
    return found


def _spacing_zyx_mm(image: Any) -> Spacing:
    """As ITK has it; where the sform was taken and has other voxels, theirs."""
    found = np.array(image.GetSpacing()[:3])
    if (steps := sform_steps_mm(image)) is not None:
        own = np.linalg.norm(steps, axis=0)
        if np.abs(own - found).max() > ROUNDING * own.min():
            found = own
    return triple(found[::-1])


def _at_right_angles(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest directions that are at right angles; such ones stay as they are to the bit."""
    if np.abs(directions.T @ directions - np.eye(3)).max() <= ROUNDING:
        return directions
    left, _, right = np.linalg.svd(directions)
    return np.asarray(left @ right)


def _skew(image: Any) -> float:
    """How far the axes of an image, or of a reader of one, are from right angles; 0 for none."""
    directions = _directions(image)
    if not np.isfinite(directions).all():
        return math.inf
    return float(np.abs(directions - _at_right_angles(directions)).max())


def _claim(beside: Path, size: int) -> None:
    """Fail as the disk does (OSError) where there is no room for `size` bytes."""
    with beside.open("wb") as file:
        file.write(bytes(size))
