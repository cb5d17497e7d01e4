"""Labels as a DICOM segmentation object (SEG) that refers to the slices it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.sr.codedict import codes

from u2net_platform.errors import InvalidHeader, MissingPosition
from u2net_platform.files import atomic_path
from u2net_platform.imaging.dicom import Series, discreet, sorted_slices
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import LabelVolume
from u2net_platform.settings import PRODUCT

LONGEST = 64  # characters of most texts in DICOM
SERIES_NUMBER = 1000  # beyond what scanners count to
# A SEG has to carry them, be they empty; anonymised images often lack them.
CARRIED = """
    PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime
""".split()  # noqa: SIM905


def write_seg(
    path: Path, labels: LabelVolume, names: tuple[str, ...], series: Series, version: str
) -> None:
    """Write one segment a class, whole or not at all, for labels on the grid of `read_series`.

    The file names the patient, as the images that it belongs to do. `version` is who labelled
    them, as `heart:3`.

    Raises:
        MissingPosition, InvalidHeader: as `check_seg`.
        NotWritable, DiskFull: with the file named; what was there before stays.
    """
    content = _content(labels, names, series, version)
    with discreet(), atomic_path(path) as temporary:
        content.save_as(temporary)


def check_seg(grid: Grid, names: tuple[str, ...], series: Series, version: str) -> None:
    """Make a SEG of a single voxel, to see before the work whether there can be one.

    Raises:
        MissingPosition: the series names no frame of reference.
        InvalidHeader: the patient's or the study's attributes break the standard.
    """
    single = LabelVolume(np.zeros(grid.shape_zyx, np.uint8), grid)
    single.array[0, 0, 0] = 1
    _content(single, names, series, version)


def labelled_by(path: Path) -> str | None:
    """The version that a SEG is by, as it was given to `write_seg`; None where it tells none."""
    try:
        with discreet():
            segment = pydicom.dcmread(path, specific_tags=["SegmentSequence"]).SegmentSequence[0]
        return str(segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion)
    except Exception:  # a file may be of any kind
        return None


def _content(
    labels: LabelVolume, names: tuple[str, ...], series: Series, version: str
) -> Segmentation:
    with discreet():
        sources = _sources(series)
        try:
            return _segmentation(labels, names, sources, version)
        except ValueError:  # it quotes the value
            raise InvalidHeader(
                f"an attribute of the patient or the study in the headers of series {series.uid},"
                " as a date, a time, the sex or the character set, breaks the standard, so that no"
                " SEG can carry it",
                "Correct the headers, or write the labels as .nii.gz.",
            ) from None


def _segmentation(
    labels: LabelVolume, names: tuple[str, ...], sources: Sequence[pydicom.Dataset], version: str
) -> Segmentation:
    return Segmentation(
        sources,
        _mask(labels, sources),
        SegmentationTypeValues.BINARY,
        [_segment(number, name, version) for number, name in enumerate(names, 1)],
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=metadata.version(PRODUCT),
        device_serial_number=version[:LONGEST],
        omit_empty_frames=bool(labels.array.any()),
        content_label="SEGMENTATION",
        series_description=f"{PRODUCT} {version}"[:LONGEST],
    )


def _sources(series: Series) -> Sequence[pydicom.Dataset]:
    headers = list(series.headers) if series.is_multi_frame else sorted_slices(series)
    sources = [pydicom.dcmread(str(one.filename), stop_before_pixels=True) for one in headers]
    for source in sources:
        if not source.get("FrameOfReferenceUID"):
            raise MissingPosition(
                f"series {series.uid} names no frame of reference, which a SEG needs",
                "Write the labels as .nii.gz, or export the series again.",
            )
        if not source.get("StudyInstanceUID"):
            raise InvalidHeader(
                f"series {series.uid} names no study, which a SEG needs",
                "Write the labels as .nii.gz, or export the series again.",
            )
        for keyword in CARRIED:
            source.setdefault(keyword, "")
        source.setdefault("SliceThickness", None)
        source.decode()  # of the character sets that DICOM has, highdicom takes some
        source.SpecificCharacterSet = "ISO_IR 192"  # UTF-8
    return sources


def _mask(labels: LabelVolume, sources: Sequence[pydicom.Dataset]) -> np.ndarray | highdicom.Volume:
    """Slice for slice where every slice is a file; by place where frames have their own order."""
    if len(sources) > 1:
        return labels.array
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = labels.grid.steps[:, ::-1], labels.grid.origin_lps_mm
    frame = sources[0].FrameOfReferenceUID
    return highdicom.Volume(labels.array, affine, "PATIENT", frame_of_reference_uid=frame)


def _segment(number: int, name: str, version: str) -> SegmentDescription:
    # The standard's own list of anatomical structures; what it does not know is plain tissue.
    known = getattr(codes.cid7192, name.title().replace(" ", ""), codes.cid7150.Tissue)
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:LONGEST],
        segmented_property_category=codes.cid7150.AnatomicalStructure,
        segmented_property_type=known,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=PRODUCT, version=version[:LONGEST], family=codes.cid7162.ArtificialIntelligence
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=f"{version} {name}",
    )
