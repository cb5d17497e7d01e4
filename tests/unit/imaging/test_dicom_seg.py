from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import generate_uid

from u2net_platform.errors import InvalidHeader, MissingPosition
from u2net_platform.imaging.dicom import Series, choose_series, read_series, sorted_slices
from u2net_platform.imaging.dicom_seg import write_seg
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import ImageVolume, LabelVolume

NAMES = ("left atrium", "whatever it is")


@pytest.fixture
def labels(organ: np.ndarray, oblique: Grid) -> LabelVolume:
    """The organ, the upper half of which is of class 2; most slices hold none."""
    array = organ.copy()
    array[len(array) // 2 :] *= 2
    assert set(np.unique(array)) == {0, 1, 2}
    assert not array.any((1, 2)).all()
    return LabelVolume(array, oblique)


@pytest.fixture
def series(write_series: Callable[..., Path], scan: ImageVolume, tmp_path: Path) -> Series:
    return choose_series(write_series(tmp_path / "series", scan.array[0].round(), scan.grid))


@pytest.fixture
def written(series: Series, labels: LabelVolume, tmp_path: Path) -> Path:
    write_seg(tmp_path / "labels.dcm", labels, NAMES, series, "heart:3")
    return tmp_path / "labels.dcm"


def originals(series: Series) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(str(header.filename)) for header in sorted_slices(series)]


def test_highdicom_finds_the_labels_where_it_finds_the_image(
    written: Path, series: Series, labels: LabelVolume
) -> None:
    source = highdicom.get_volume_from_series(originals(series))
    found = highdicom.seg.segread(written).get_volume(combine_segments=True)
    assert found.frame_of_reference_uid == source.frame_of_reference_uid
    # highdicom begins at the other end of the stack than this project.
    np.testing.assert_array_equal(source.array[::-1], read_series(series).array[0])
    # This flips and pads, and refuses what lies between voxels.
    np.testing.assert_array_equal(found.match_geometry(source).array[::-1], labels.array)


def test_every_frame_as_simpleitk_decodes_it_is_a_class_on_the_slice_it_refers_to(
    written: Path, series: Series, labels: LabelVolume
) -> None:
    image, seg = SimpleITK.ReadImage(str(written)), pydicom.dcmread(written)
    frames = SimpleITK.GetArrayFromImage(image)
    slices = {one.SOPInstanceUID: k for k, one in enumerate(originals(series))}
    found, grid = np.zeros_like(labels.array), labels.grid
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        k = slices[source.ReferencedSOPInstanceUID]
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        assert np.linalg.norm(place - grid.point([k, 0, 0])) < 1e-3
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[k][frame > 0] = number
    np.testing.assert_array_equal(found, labels.array)
    first = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert image.GetOrigin() == pytest.approx(first, abs=1e-4)
    in_plane = np.reshape(image.GetDirection(), (3, 3))[:, :2]
    assert np.allclose(in_plane, np.reshape(grid.direction_lps, (3, 3))[:, :2], atol=1e-6)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    spacing = [measures.SpacingBetweenSlices, *measures.PixelSpacing]
    assert spacing == pytest.approx(grid.spacing_zyx_mm)


def test_segments_say_what_they_are_and_who_made_them(written: Path, series: Series) -> None:
    seg, source = pydicom.dcmread(written), originals(series)[0]
    assert [one.SegmentLabel for one in seg.SegmentSequence] == list(NAMES)
    meanings = [one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for one in seg.SegmentSequence]
    assert meanings == ["Left atrium", "Tissue"]
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("u2net-platform", "heart:3")
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID", "PatientName", "PatientID"):
        assert seg[keyword].value == source[keyword].value
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 6", "Doe^J"),
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
    ids=["ASCII", "Latin 1", "Japanese", "Korean"],
)
def test_the_patient_s_name_is_kept_in_whatever_characters(
    write_series: Callable[..., Path], labels, scan, tmp_path: Path, character_set, name: str
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        header.SpecificCharacterSet, header.PatientName = character_set, name

    place = write_series(tmp_path / "study", scan.array[0].round(), scan.grid, change=change)
    write_seg(tmp_path / "labels.dcm", labels, NAMES, choose_series(place), "heart:3")
    assert str(pydicom.dcmread(tmp_path / "labels.dcm").PatientName) == name


def test_frames_of_an_enhanced_file_are_referred_to_by_their_place(
    series: Series, labels: LabelVolume, tmp_path: Path
) -> None:
    frames = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        originals(series), generate_uid(), 1, generate_uid(), 1
    )
    # highdicom sorts the frames; a scanner need not.
    groups = list(frames.PerFrameFunctionalGroupsSequence)
    frames.PixelData = np.roll(frames.pixel_array, 3, axis=0).tobytes()
    frames.PerFrameFunctionalGroupsSequence = groups[-3:] + groups[:-3]
    (tmp_path / "enhanced").mkdir()
    frames.save_as(tmp_path / "enhanced" / "one.dcm")
    enhanced = choose_series(tmp_path / "enhanced")
    turned = LabelVolume(labels.array[::-1], read_series(enhanced).grid)
    write_seg(tmp_path / "labels.dcm", turned, NAMES, enhanced, "heart:3")
    seg = pydicom.dcmread(tmp_path / "labels.dcm")
    sources = [
        one.PlanePositionSequence[0].ImagePositionPatient
        for one in frames.PerFrameFunctionalGroupsSequence
    ]
    for groups in seg.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place, sources[source.ReferencedFrameNumber - 1], atol=1e-3)
    read = highdicom.seg.segread(tmp_path / "labels.dcm").get_volume(combine_segments=True)
    whole = read.match_geometry(highdicom.imread(tmp_path / "enhanced" / "one.dcm").get_volume())
    np.testing.assert_array_equal(whole.array, turned.array)


def test_labels_without_any_organ_are_written(
    series: Series, labels: LabelVolume, tmp_path: Path
) -> None:
    nothing = LabelVolume(np.zeros_like(labels.array), labels.grid)
    write_seg(tmp_path / "none.dcm", nothing, NAMES, series, "heart:3")
    assert not pydicom.dcmread(tmp_path / "none.dcm").pixel_array.any()


def test_an_anonymised_series_needs_no_patient_but_a_frame_of_reference(
    write_series: Callable[..., Path], scan: ImageVolume, labels: LabelVolume, tmp_path: Path
) -> None:
    def write(*keywords: str) -> None:
        folder = write_series(
            tmp_path / keywords[0],
            scan.array[0],
            scan.grid,
            change=lambda k, header: [header.pop(keyword) for keyword in keywords],
        )
        write_seg(tmp_path / "out.dcm", labels, NAMES, choose_series(folder), "heart:3")

    write("PatientName", "PatientID", "PatientBirthDate", "SliceThickness")
    before = (tmp_path / "out.dcm").read_bytes()
    with pytest.raises(MissingPosition, match="frame of reference"):
        write("FrameOfReferenceUID")
    assert (tmp_path / "out.dcm").read_bytes() == before
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.filterwarnings("ignore:Invalid value")  # as the test writes it
def test_a_header_that_breaks_the_standard_is_named_and_not_quoted(
    write_series: Callable[..., Path], scan: ImageVolume, labels: LabelVolume, tmp_path: Path
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        with pydicom.config.disable_value_validation():
            header.PatientBirthDate = "23.08.1961"

    folder = write_series(tmp_path / "series", scan.array[0], scan.grid, change=change)
    with pytest.raises(InvalidHeader) as caught:
        write_seg(tmp_path / "out.dcm", labels, NAMES, choose_series(folder), "heart:3")
    assert "1961" not in str(caught.value)


def test_a_long_name_of_a_domain_is_cut_where_dicom_does(
    series: Series, labels: LabelVolume, tmp_path: Path
) -> None:
    version = f"{'o' * 70}:3"
    write_seg(tmp_path / "out.dcm", labels, NAMES, series, version)
    seg = pydicom.dcmread(tmp_path / "out.dcm")
    assert len(seg.SeriesDescription) == len(seg.DeviceSerialNumber) == 64


def test_what_is_odd_about_a_patients_header_is_neither_warned_of_nor_logged(
    write_series: Callable[..., Path],
    scan: ImageVolume,
    labels: LabelVolume,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        with pydicom.config.disable_value_validation():
            header.PatientName = "Doe=Jane=a=b=c=d"

    series = choose_series(write_series(tmp_path, scan.array[0], scan.grid, change=change))
    recwarn.clear()
    caplog.clear()
    write_seg(tmp_path / "out.dcm", labels, NAMES, series, "heart:3")
    assert ([str(one.message) for one in recwarn], caplog.records) == ([], [])
