from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, generate_uid

from u2net_platform import errors
from u2net_platform.data.dataset import open_dataset
from u2net_platform.imaging.dicom import (
    choose_series,
    find_series,
    find_studies,
    holds_dicom,
    read_series,
)
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import ImageVolume, canonical, read_image

Write = Callable[..., Path]
Change = Callable[[int, Any], None]


@pytest.fixture
def ct(scan: ImageVolume) -> ImageVolume:
    """The scan in whole Hounsfield units, some below zero."""
    return replace(scan, array=scan.array.round() - 1000)


def stored(image: ImageVolume, intercept: int = -1024, slope: int = 1) -> np.ndarray:
    return (image.array[0] - intercept) / slope


def assert_same(found: ImageVolume, expected: ImageVolume) -> None:
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.grid.displacement_mm(expected.grid) < 1e-3


def test_an_oblique_series_comes_back_in_hounsfield_units_and_in_place(
    write_series: Write, ct: ImageVolume, tmp_path: Path
) -> None:
    folder = write_series(tmp_path, stored(ct), ct.grid, "CT", intercept=-1024)
    assert_same(read_image([folder]), ct)


def test_labels_of_a_study_that_are_kept_elsewhere_are_no_images_to_label(
    write_series: Write, ct: ImageVolume, tmp_path: Path
) -> None:
    def seg(k: int, header: pydicom.Dataset) -> None:
        header.Modality = "SEG"

    for place, change in (("images", lambda k, header: None), ("segs", seg)):
        write_series(tmp_path / place, stored(ct), ct.grid, "MR", change=change)
    assert find_studies(tmp_path, "other") == ([tmp_path / "images"], [tmp_path / "segs"])


def test_each_slice_has_a_slope_of_its_own(
    write_series: Write, oblique: Grid, tmp_path: Path
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        header.RescaleSlope, header.RescaleIntercept = 1 + k / 2, k

    raw = np.arange(np.prod(oblique.shape_zyx)).reshape(oblique.shape_zyx) % 1000
    folder = write_series(tmp_path, raw, oblique, "CT", change=change)
    k = np.arange(len(raw)).reshape(-1, 1, 1)
    np.testing.assert_array_equal(read_image([folder]).array[0], raw * (1 + k / 2) + k)


def test_a_compressed_series_is_read(write_series: Write, ct: ImageVolume, tmp_path: Path) -> None:
    folder = write_series(
        tmp_path,
        stored(ct),
        ct.grid,
        "CT",
        intercept=-1024,
        change=lambda k, header: header.compress(JPEGLSLossless),
    )
    assert_same(read_image([folder]), ct)


def frames_of(folder: Path) -> pydicom.Dataset:
    """Slices as one file; frames out of order, as their places and not their numbers count."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    made: pydicom.Dataset = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices, generate_uid(), 1, generate_uid(), 1
    )
    return made


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_frames_of_an_enhanced_file_have_a_slope_and_a_place_of_their_own(
    write_series: Write, ct: ImageVolume, tmp_path: Path
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        header.RescaleSlope, header.RescaleIntercept = 1 + k % 2, k

    folder = write_series(tmp_path / "slices", stored(ct), ct.grid, "CT", change=change)
    frames_of(folder).save_as(new_folder(tmp_path / "enhanced") / "one.dcm")
    classic, enhanced = read_image([folder]), read_image([tmp_path / "enhanced"])
    # Which end of the stack comes first is free.
    assert_same(canonical(enhanced), canonical(classic))
    needs = [choose_series(tmp_path / name).reading_bytes for name in ("slices", "enhanced")]
    assert needs == [8 * ct.array.size, 13 * ct.array.size]


def inverted(frames: pydicom.Dataset) -> None:
    frames.PhotometricInterpretation = "MONOCHROME1"


def in_other_units(frames: pydicom.Dataset) -> None:
    unit = pydicom.Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "g/ml{SUVbw}", "UCUM", "SUV"
    for groups in frames.PerFrameFunctionalGroupsSequence:
        mapping = pydicom.Dataset()
        mapping.RealWorldValueFirstValueMapped = -32768
        mapping.RealWorldValueLastValueMapped = 32767
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.01, 0.0
        mapping.LUTLabel = mapping.LUTExplanation = "SUV"
        mapping.MeasurementUnitsCodeSequence = [unit]
        groups.RealWorldValueMappingSequence = [mapping]


def test_frames_are_read_by_the_rules_of_slices(
    write_series: Write, ct: ImageVolume, tmp_path: Path
) -> None:
    def leaning(degrees: float) -> Change:
        step = ct.grid.spacing_zyx_mm[0] * np.tan(np.radians(degrees))
        return shift(lambda k: k * step * np.reshape(ct.grid.direction_lps, (3, 3))[:, 1])

    for degrees in (0, 1):
        place = tmp_path / f"slices_{degrees}"
        write_series(place, stored(ct), ct.grid, "CT", intercept=-1024, change=leaning(degrees))
    tilted = new_folder(tmp_path / "tilted")
    frames_of(tmp_path / "slices_1").save_as(tilted / "one.dcm")
    for folder, error in (
        (tmp_path / "slices_1", errors.GantryTilt),
        (tilted, errors.UnsupportedMultiFrame),
    ):
        with pytest.raises(error):
            read_image([folder])
    frames = frames_of(tmp_path / "slices_0")
    in_other_units(frames)
    frames.save_as(new_folder(tmp_path / "units") / "one.dcm")
    assert_same(canonical(read_image([tmp_path / "units"])), canonical(ct))
    inverted(frames)
    frames.save_as(new_folder(tmp_path / "inverted") / "one.dcm")
    with pytest.raises(errors.InvalidHeader, match="MONOCHROME1"):
        read_image([tmp_path / "inverted"])


@pytest.mark.parametrize(
    "kind", ["1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.20"], ids=["XA", "NM"]
)
def test_slices_lie_where_their_headers_say_whatever_kind_they_are_of(
    write_series: Write, ct: ImageVolume, tmp_path: Path, kind: str
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        header.SOPClassUID = kind

    folder = write_series(tmp_path, stored(ct), ct.grid, "OT", intercept=-1024, change=change)
    assert read_image([folder]).grid.displacement_mm(ct.grid) < 1e-3


def test_studies_are_found_where_links_lead(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    array, grid = small
    for name in ("one", "two", "three"):
        place = tmp_path / ("archive" if name == "three" else "studies") / name
        write_series(place, array, grid, "MR")
    (tmp_path / "studies" / "linked").symlink_to(tmp_path / "archive" / "three")
    (tmp_path / "studies" / "one" / "loop").symlink_to(tmp_path / "studies")
    found, left = find_studies(tmp_path / "studies", "MR")
    assert ([path.name for path in found], left) == (["linked", "one", "two"], [])
    only_links = new_folder(tmp_path / "only links")
    (only_links / "three").symlink_to(tmp_path / "archive" / "three")
    assert holds_dicom(only_links)


@pytest.mark.parametrize("name", ["Task02_Heart", "Task09_Spleen"])
def test_a_real_volume_comes_back_voxel_for_voxel(
    real_data: Path, write_series: Write, tmp_path: Path, name: str
) -> None:
    if not (real_data / name).is_dir():
        pytest.skip(f"{real_data / name} is not there")
    # Right-handed, as stacks of slices are.
    image = canonical(read_image(open_dataset(real_data / name).training[0].images))
    part = image.array[:, 10:30, :96, :80].round()
    first = image.grid.point([10, 0, 0]).tolist()
    grid = replace(image.grid, shape_zyx=part.shape[1:], origin_lps_mm=tuple(first))
    expected = ImageVolume(part, grid)
    assert_same(
        read_image([write_series(tmp_path, stored(expected), grid, intercept=-1024)]), expected
    )


def shift(mm: Callable[[int], np.ndarray]) -> Change:
    def change(k: int, header: pydicom.Dataset) -> None:
        place = np.array(header.ImagePositionPatient, float) + mm(k)
        header.ImagePositionPatient = [f"{value:.9g}" for value in place]

    return change


def only(at: int, change: Callable[[pydicom.Dataset], None]) -> Change:
    return lambda k, header: change(header) if k == at else None


def crop(header: pydicom.Dataset) -> None:
    header.Rows -= 1
    header.PixelData = header.PixelData[: header.Rows * header.Columns * 2]


def turn(header: pydicom.Dataset) -> None:
    header.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]


def as_localizer(header: pydicom.Dataset) -> None:
    header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    turn(header)


def in_colour(header: pydicom.Dataset) -> None:
    header.SamplesPerPixel = 3


def as_htj2k(header: pydicom.Dataset) -> None:
    header.PixelData = pydicom.encaps.encapsulate([header.PixelData])
    header.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless


def as_lossless_frames(header: pydicom.Dataset) -> None:
    header.NumberOfFrames = 2
    header.PixelData = pydicom.encaps.encapsulate([header.PixelData] * 2)
    header.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1


def as_frames(header: pydicom.Dataset) -> None:
    header.NumberOfFrames = 2
    header.PixelData *= 2


def put(keyword: str, value: Any) -> Change:
    """In the third slice, as no library that knows the standard writes it."""

    def change(k: int, header: pydicom.Dataset) -> None:
        if k == 2:
            with pydicom.config.disable_value_validation():
                setattr(header, keyword, value)

    return change


SLOPE = np.array([0.0, 0.0, 1.0])
FAULTS: dict[str, tuple[Change, type[errors.DataError], str]] = {
    "uneven": (shift(lambda k: k % 2 * 0.5 * SLOPE), errors.UnevenSlices, "2.5 to 3.5 mm"),
    "tilted": (shift(lambda k: k * np.array([0.0, 1.0, 0.0])), errors.GantryTilt, "18 degrees"),
    "copy": (shift(lambda k: -3 * SLOPE * (k == 4)), errors.DuplicateSlices, "1 slices"),
    "all twice": (shift(lambda k: -3 * SLOPE * (k % 2)), errors.DuplicateSlices, "5 slices"),
    "turned": (only(2, turn), errors.MixedOrientations, "IM"),
    "localizer": (only(2, as_localizer), errors.LocalizerMixedIn, "IM"),
    "cropped": (only(2, crop), errors.MixedSliceSizes, "7 x 8 pixels"),
    "no place": (
        only(2, lambda header: header.pop("ImagePositionPatient")),
        errors.MissingPosition,
        "IM",
    ),
    "no pixel size": (put("PixelSpacing", [0, 0]), errors.InvalidHeader, "PixelSpacing"),
    "negative pixel size": (put("PixelSpacing", [-1, 1]), errors.InvalidHeader, "PixelSpacing"),
    "one pixel size": (put("PixelSpacing", [1]), errors.InvalidHeader, "PixelSpacing"),
    "four cosines": (
        put("ImageOrientationPatient", [1, 0, 0, 0]),
        errors.InvalidHeader,
        "ImageOrientationPatient",
    ),
    "no cosines": (
        put("ImageOrientationPatient", [0] * 6),
        errors.InvalidHeader,
        "ImageOrientationPatient",
    ),
    "two coordinates": (
        put("ImagePositionPatient", [0, 0]),
        errors.InvalidHeader,
        "ImagePositionPatient",
    ),
    "slope of zero": (put("RescaleSlope", 0), errors.InvalidHeader, "RescaleSlope"),
    "inverted": (
        put("PhotometricInterpretation", "MONOCHROME1"),
        errors.InvalidHeader,
        "MONOCHROME1",
    ),
    "a table of values": (
        put("ModalityLUTSequence", [pydicom.Dataset()]),
        errors.InvalidHeader,
        "ModalityLUTSequence",
    ),
    "two modalities": (put("Modality", "OT"), errors.MixedSlices, "Modality"),
    "two frames of reference": (
        put("FrameOfReferenceUID", generate_uid()),
        errors.MixedSlices,
        "FrameOfReferenceUID",
    ),
    "signed and unsigned": (put("PixelRepresentation", 0), errors.MixedSlices, "Pixel"),
    "one name for two": (
        lambda k, header: setattr(header, "SOPInstanceUID", "1.2.3") if k < 2 else None,
        errors.DuplicateSlices,
        "SOPInstanceUID",
    ),
    "no pixels": (only(2, lambda header: header.pop("PixelData")), errors.NoImageData, "IM"),
    "only reports": (
        lambda k, header: header.pop("PixelData"),
        errors.NoImageData,
        "holds no image, but only MR",
    ),
    "colour": (only(2, in_colour), errors.UnreadableImage, "in colour"),
    "htj2k": (only(2, as_htj2k), errors.UnsupportedCompression, "High-Throughput JPEG 2000"),
    "lossless frames": (
        only(2, as_lossless_frames),
        errors.UnsupportedCompression,
        "JPEG Lossless.* not read in frames",
    ),
    "no rows": (only(2, lambda header: header.pop("Rows")), errors.InvalidHeader, "lacks Rows"),
    "other pixel size": (
        put("PixelSpacing", [1, 1.02]),
        errors.MixedSliceSizes,
        "1.0 x 1.02 mm",
    ),
    "frames": (only(2, as_frames), errors.UnsupportedMultiFrame, "10 files of frames"),
    "cut off": (
        only(2, lambda header: setattr(header, "PixelData", header.PixelData[:-20])),
        errors.UnreadableImage,
        "fewer pixels",
    ),
}


@pytest.fixture
def small() -> tuple[np.ndarray, Grid]:
    identity = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
    return np.arange(640).reshape(10, 8, 8), Grid(
        (10, 8, 8), (3.0, 1.0, 1.0), (0.0, 0, 0), identity
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_what_hospitals_export_badly_is_named(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path, fault: str
) -> None:
    change, error, words = FAULTS[fault]
    folder = write_series(tmp_path, *small, change=change)
    with pytest.raises(error, match=words) as caught:
        read_image([folder])
    assert type(caught.value) is error
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_cut_off_is_named(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path, compressed: bool
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        if compressed:
            header.compress(JPEGLSLossless)

    victim = sorted(write_series(tmp_path, *small, change=change).iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-30])
    with pytest.raises(errors.UnreadableImage, match="cannot be read"):
        read_image([tmp_path])


def test_a_missing_slice_is_named_with_its_neighbours(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    folder = write_series(tmp_path, *small)
    headers = find_series(folder)[0].headers
    before, missing, after = sorted(headers, key=lambda one: one.ImagePositionPatient[2])[6:9]
    Path(str(missing.filename)).unlink()
    with pytest.raises(errors.UnevenSlices) as caught:
        read_image([folder])
    assert f"between {before.filename} and {after.filename}" in caught.value.message


def test_a_single_slice_is_no_volume(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    with pytest.raises(errors.SingleSlice):
        read_image([write_series(tmp_path, small[0][:1], small[1])])


def test_positions_that_a_header_rounds_make_a_volume(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    folder = write_series(tmp_path, *small, change=shift(lambda k: (-1) ** k * 0.05 * SLOPE))
    assert read_image([folder]).grid.displacement_mm(small[1]) < 0.06


def test_pixel_sizes_that_a_header_rounds_are_the_same(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    folder = write_series(tmp_path, *small, change=put("PixelSpacing", [1.0001, 0.9999]))
    assert read_image([folder]).grid.displacement_mm(small[1]) < 1e-3


def test_a_header_without_a_transfer_syntax_is_named(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    victim = sorted(write_series(tmp_path, *small).iterdir())[3]
    header = pydicom.dcmread(victim)
    del header.file_meta.TransferSyntaxUID
    header.save_as(victim, implicit_vr=False, little_endian=True)
    with pytest.raises(errors.InvalidHeader, match="lacks TransferSyntaxUID"):
        read_image([tmp_path])


def test_a_folder_without_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(errors.NoDicom):
        read_image([tmp_path])


def test_the_series_of_the_modality_is_chosen_among_scouts_and_other_modalities(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    array, grid = small
    wanted = write_series(tmp_path / "study" / "mr", array, grid, "MR")
    write_series(tmp_path / "study" / "ct", array, grid, "CT")
    write_series(tmp_path / "study" / "scout", array[:3], grid, "MR", change=only(1, turn))
    write_series(
        tmp_path / "study" / "topo", array, grid, "MR", change=lambda k, one: as_localizer(one)
    )
    (tmp_path / "study" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    chosen = choose_series(tmp_path / "study", "MR")
    assert chosen.uid == find_series(wanted)[0].uid


def test_a_choice_that_is_not_clear_lists_the_series_and_takes_a_uid(
    write_series: Write, small: tuple[np.ndarray, Grid], tmp_path: Path
) -> None:
    array, grid = small
    write_series(tmp_path / "a", array, grid, "MR")
    write_series(tmp_path / "b", 2 * array, grid, "MR")
    (second,) = find_series(tmp_path / "b")
    with pytest.raises(errors.AmbiguousSeries) as caught:
        choose_series(tmp_path, "MR")
    assert f"{second.uid}: made, MR, 10 slices, 3 x 1 x 1 mm" in caught.value.message
    assert "--series" in caught.value.hint
    assert "Doe" not in str(caught.value)
    np.testing.assert_array_equal(
        read_series(choose_series(tmp_path, "MR", second.uid)).array[0], 2 * array
    )
    with pytest.raises(errors.AmbiguousSeries, match=r"no series 1\.2\.3"):
        choose_series(tmp_path, "MR", "1.2.3")
    with pytest.raises(errors.AmbiguousSeries, match="no volumes of modality CT"):
        choose_series(tmp_path, "CT")
