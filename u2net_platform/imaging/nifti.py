"""What ITK's NIfTI reader keeps quiet about: it repairs, guesses and fills in without a word."""

# mypy: allow-untyped-calls
from __future__ import annotations

import gzip
import itertools
import math
import shutil
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from u2net_platform.errors import NonFiniteImage, UnreadableImage
from u2net_platform.imaging.grid import SAME_GRID_TOLERANCE

NIFTI_COLOURS = ("128", "2304")  # its codes for RGB and RGBA
NIFTI_FLOATS = {"16": "f4", "64": "f8"}  # its codes for numbers that can be NaN
NIFTI_ENDINGS = (".nii.gz", ".nii")
# Of a header, by its size: where its voxels lie, in either form. Source: nifti1.h and nifti2.h.
PLACE = ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow")
PLACES = {
    size: np.dtype({"names": PLACE, "formats": kinds, "offsets": offsets, "itemsize": size})
    for size, kinds, offsets in (
        (348, ["4f4", "u1", "i2", "i2", "3f4", "3f4", "12f4"], [76, 123, 252, 254, 256, 268, 280]),
        (540, ["4f8", "i4", "i4", "i4", "3f8", "3f8", "12f8"], [104, 500, 344, 348, 352, 376, 400]),
    )
}
NIFTI_HEADER_SIZES = tuple(PLACES)  # of versions 1 and 2; the first number in the file


def check_nifti(path: Path, image: Any) -> None:
    """Find what the reader puts zeros for: NaN, and what is cut off.

    Raises:
        UnreadableImage, NonFiniteImage
    """
    if image.GetMetaData("datatype") in NIFTI_COLOURS:
        raise UnreadableImage(f"{path} is in colour", "Save its intensities, one number a voxel.")
    voxels = math.prod(image.GetSize()) * image.GetNumberOfComponentsPerPixel()
    promised = voxels * int(image.GetMetaData("bitpix")) // 8
    kind = NIFTI_FLOATS.get(image.GetMetaData("datatype"))
    held, finite = 0, True
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            order = "<" if int.from_bytes(file.read(4), "little") in NIFTI_HEADER_SIZES else ">"
            file.read(_first_voxel(path, image) - 4)
            while block := file.read(min(1 << 20, promised - held)):
                held += len(block)
                if kind:
                    numbers = np.dtype(order + kind)
                    whole = block[: len(block) // numbers.itemsize * numbers.itemsize]
                    finite &= bool(np.isfinite(np.frombuffer(whole, numbers)).all())
            while file.read(1 << 20):  # to the checksum at the end
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise unreadable(path, f"damaged or truncated ({error})") from error
    if held < promised:
        raise unreadable(path, f"truncated ({held} of {promised} bytes are there)")
    if not finite:
        raise NonFiniteImage(f"{path} holds NaN or infinite values", "Replace them in the file.")


def _first_voxel(path: Path, image: Any) -> int:
    """The byte of the first voxel; the reader takes any number for one, within the header too."""
    offset = float(image.GetMetaData("vox_offset"))
    if not offset >= NIFTI_HEADER_SIZES[0] + 4 and image.GetMetaData("nifti_type") == "1":
        raise unreadable(path, f"its voxels begin at byte {offset:g}, within its header")
    return int(offset)


UNITS_MM = {1: 1e3, 3: 1e-3}  # metres and micrometres, by NIfTI's codes


def places_by_sform(reader: Any) -> bool:
    """Whether ITK takes a NIfTI file's sform for where it lies, and not its qform: where the sform
    is the scanner's, or there is no qform."""
    if not reader.HasMetaDataKey("sform_code"):
        return False
    sform, qform = (int(reader.GetMetaData(f"{name}form_code")) for name in "sq")
    return sform == 1 or (sform > 0 and qform == 0)


def sform_steps_mm(reader: Any) -> NDArray[np.float64] | None:
    """From voxel to voxel along x, y and z (columns, LPS), where ITK takes the sform; of that it
    takes the directions alone. None where it does not, or a column has no length."""
    if not places_by_sform(reader):
        return None
    unit_mm = UNITS_MM.get(int(reader.GetMetaData("xyzt_units")) & 7, 1.0)
    steps = _sform(reader)[:, :3] * [[-unit_mm], [-unit_mm], [unit_mm]]
    lengths = np.linalg.norm(steps, axis=0)
    return steps if lengths.all() and np.isfinite(lengths).all() else None


def _sform(reader: Any) -> NDArray[np.float64]:
    return np.array([reader.GetMetaData(f"srow_{axis}").split() for axis in "xyz"], float)


def contradiction_mm(reader: Any) -> float:
    """How far corners by sform and qform lie apart, or, where there is no qform, by the sform's
    voxels and those of `pixdim`; 0 within `SAME_GRID_TOLERANCE` voxels.

    Source: NIfTI-1 standard, nifti1.h, methods 2 and 3.
    """

    def of(name: str) -> float:
        return float(reader.GetMetaData(name))

    if not reader.HasMetaDataKey("sform_code") or not of("sform_code"):
        return 0.0
    if of("qform_code") not in (0, of("sform_code")):  # which says that they mean two spaces
        return 0.0
    corners = np.array(list(itertools.product(*((0, side - 1) for side in reader.GetSize()[:3]))))
    spacing = np.array([of(f"pixdim[{axis}]") for axis in (1, 2, 3)])
    sform = _sform(reader)
    if not np.isfinite(sform).all():  # of which its reader says more
        return 0.0
    there = corners @ sform[:, :3].T + sform[:, 3]
    if of("qform_code"):
        quaternion = np.array([of(f"quatern_{axis}") for axis in "bcd"])
        real = math.sqrt(max(0.0, 1.0 - quaternion @ quaternion))
        turned = Rotation.from_quat([*quaternion, real]).as_matrix()
        offset = np.array([of(f"qoffset_{axis}") for axis in "xyz"])
    else:
        lengths = np.linalg.norm(sform[:, :3], axis=0)
        turned, offset = sform[:, :3] / np.where(lengths, lengths, 1), sform[:, 3]
    apart = min(  # the reader does not tell which way the third axis goes
        np.linalg.norm(there - corners @ (turned * spacing * [1, 1, sign]).T - offset, axis=1).max()
        for sign in (1, -1)
    )
    return float(apart) if apart > SAME_GRID_TOLERANCE * spacing.min() else 0.0


def copy_place(source: Path, target: Path) -> None:
    """Give a NIfTI file that ITK has written the place in the header of another, whose voxels lie
    as its own do: both forms, what space they mean, and units.

    ITK knows one form and calls it the scanner's; a viewer that goes by the other would show labels
    beside their image.
    """
    there, here = (_place(_start(path)) for path in (source, target))
    if there is None or here is None:
        return
    if all(np.allclose(there[name], here[name], rtol=1e-6, atol=1e-6) for name in PLACE):
        return
    opened = gzip.open if target.suffix == ".gz" else open
    with tempfile.TemporaryFile(dir=target.parent) as whole:
        with opened(target, "rb") as file:
            shutil.copyfileobj(file, whole)
        whole.seek(0)
        header = np.frombuffer(bytearray(whole.read(here.dtype.itemsize)), here.dtype)
        for name in PLACE:
            header[name] = there[name]
        whole.seek(0)
        whole.write(header.tobytes())
        whole.seek(0)
        with ExitStack() as stack:
            out: Any = stack.enter_context(target.open("wb"))
            if target.suffix == ".gz":  # without its name and time, so that the bytes are the same
                out = stack.enter_context(gzip.GzipFile("", "wb", fileobj=out, mtime=0))
            shutil.copyfileobj(whole, out)


def _start(path: Path) -> bytes:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        return file.read(max(NIFTI_HEADER_SIZES))


def _place(start: bytes) -> Any:
    """A file's header, of which `PLACE` is named; None if it has none of NIfTI's."""
    for order in ("little", "big"):
        kind = PLACES.get(int.from_bytes(start[:4], order))
        if kind is not None and len(start) >= kind.itemsize:
            return np.frombuffer(start[: kind.itemsize], kind.newbyteorder(order))[0]
    return None


def unreadable(path: Path, reason: str) -> UnreadableImage:
    """The fault of a file that its reader gives up on."""
    last = reason.strip().splitlines()[-1]
    return UnreadableImage(
        f"{path} cannot be read: {last}", "Copy it again from its source; it may be damaged."
    )
