"""Files in, files out, and the place of every voxel between."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from u2net_platform import files
from u2net_platform.errors import (
    DiskFull,
    GeometryMismatch,
    MissingFile,
    NonFiniteImage,
    NotWritable,
    UnexpectedLabel,
    UnreadableImage,
    UnsupportedFormat,
)
from u2net_platform.imaging import volume as volume_module
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.nifti import PLACES, copy_place
from u2net_platform.imaging.volume import (
    FILE_ENDINGS,
    ImageVolume,
    LabelVolume,
    canonical,
    read_header,
    read_image,
    read_labels,
    volumes_ml,
    write_labels,
)


def save(path: Path, array: np.ndarray, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_labels_written_are_read_back_on_the_same_grid(
    tmp_path: Path, ending: str, any_grid: Grid, blob
) -> None:
    labels = blob(any_grid)
    path = tmp_path / f"a.b{ending}"
    write_labels(path, labels, ("organ",), {"version": "heart:3"})
    read = read_labels(path)
    assert np.array_equal(read.array, labels.array)
    assert read.grid.matches(labels.grid)
    legend = json.loads((tmp_path / "a.b.labels.json").read_text())
    assert legend["labels"] == {"0": "background", "1": "organ"}
    assert legend["version"] == "heart:3"
    voxel_ml = np.prod(any_grid.spacing_zyx_mm) / 1000
    found = volumes_ml(labels, ("organ", "none"))
    assert found == {"organ": pytest.approx((labels.array == 1).sum() * voxel_ml), "none": 0}
    assert len(list(tmp_path.iterdir())) == 2


def test_the_grid_says_where_simpleitk_says_that_a_voxel_lies(
    tmp_path: Path, any_grid: Grid, blob
) -> None:
    write_labels(tmp_path / "a.nrrd", blob(any_grid), ())
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    expected = image.TransformContinuousIndexToPhysicalPoint((3.0, 5.5, 7.0))
    assert read_labels(tmp_path / "a.nrrd").grid.point((7, 5.5, 3)) == pytest.approx(expected)


def test_channels_come_as_a_fourth_axis_as_vectors_or_as_files(tmp_path: Path) -> None:
    channels = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    whole = save(tmp_path / "four.nii.gz", channels)
    vectors = save(tmp_path / "vector.nrrd", np.moveaxis(channels, 0, -1), vector=True)
    files = [save(tmp_path / f"c_{i:04d}.mha", channel) for i, channel in enumerate(channels)]
    for paths in ([whole], [vectors], files):
        assert np.array_equal(read_image(paths).array, channels)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    first = save(tmp_path / "0.nii", np.ones((3, 4, 5), np.float32))
    second = save(tmp_path / "1.nii", np.ones((3, 4, 6), np.float32))
    with pytest.raises(GeometryMismatch, match=r"0\.nii and .*1\.nii"):
        read_image([first, second])


def test_each_of_two_files_that_differ_by_gz_alone_is_read_itself(tmp_path: Path) -> None:
    for ending, value in ((".nii", 1), (".nii.gz", 2)):
        save(tmp_path / f"scan{ending}", np.full((3, 4, 4 + value), value, np.float32))
    assert (read_image([tmp_path / "scan.nii"]).array == 1).all()
    assert (read_image([tmp_path / "scan.nii.gz"]).array == 2).all()
    header = read_header(tmp_path / "scan.nii.gz")
    assert header is not None
    assert header.values == 3 * 4 * 6


def test_complex_numbers_lose_no_part_in_silence(tmp_path: Path) -> None:
    path = save(tmp_path / "kspace.nii", np.full((3, 4, 5), 1 + 2j, np.complex64))
    with pytest.raises(UnreadableImage, match="complex"):
        read_image([path])


@pytest.mark.parametrize(("kind", "held"), [(np.int16, 8), (np.float32, 8), (np.float64, 16)])
def test_a_header_says_what_reading_holds(tmp_path: Path, kind: type, held: int) -> None:
    header = read_header(save(tmp_path / "scan.nii", np.ones((3, 4, 5), kind)))
    assert header is not None
    assert header.reading_bytes == held * 3 * 4 * 5


@pytest.mark.parametrize("ending", FILE_ENDINGS)
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_truncated_file_is_named_in_the_error(tmp_path: Path, ending: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (9, 30, 30)).astype(np.int16)
    path = save(tmp_path / f"scan{ending}", noise)
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(UnreadableImage, match="scan"):
        read_image([path])


def test_a_file_with_a_changed_byte_is_unreadable(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((9, 30, 30)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="scan"):
        read_image([path])


@pytest.mark.parametrize("missing", [1, 8, 9])
def test_a_file_that_ends_before_its_checksum_is_unreadable(tmp_path: Path, missing: int) -> None:
    path = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((9, 30, 30)))
    os.truncate(path, path.stat().st_size - missing)
    with pytest.raises(UnreadableImage, match="scan"):
        read_image([path])


def test_what_is_no_image_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_text("no image")
    with pytest.raises(UnreadableImage, match="scan"):
        read_image([tmp_path / "scan.nii.gz"])


def test_a_sheared_header_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", np.ones((3, 4, 5), np.float32))
    content = bytearray(path.read_bytes())
    content[252:256] = np.array([0, 1], np.int16).tobytes()  # qform_code, sform_code
    content[280:328] = np.array([1, 0.3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], np.float32).tobytes()
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="right angles") as caught:
        read_image([path])
    assert "sform" in caught.value.hint


def test_an_oblique_header_that_is_a_little_sheared_is_read_as_the_nearest_right_angles(
    tmp_path: Path, blob, oblique: Grid
) -> None:
    path = tmp_path / "scan.nii"
    write_labels(path, blob(oblique), ())
    content = bytearray(path.read_bytes())
    content[252:256] = np.array([0, 1], np.int16).tobytes()  # qform_code, sform_code
    sform = np.frombuffer(content[280:328], np.float32).reshape(3, 4).copy()
    sform[:, :3] = [[1, 0.01, 0], [0, 1, 0], [0, 0, 1]] @ sform[:, :3]
    content[280:328] = sform.astype(np.float32).tobytes()
    path.write_bytes(content)
    header, grid = read_header(path), read_image([path]).grid
    assert header is not None
    assert header.skewed
    directions = np.reshape(grid.direction_lps, (3, 3))
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(grid.direction_lps, oblique.direction_lps, atol=0.01)


@pytest.mark.parametrize("codes", [(0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (4, 4), (1, 4), (1, 0)])
def test_which_of_two_places_was_taken_is_known_and_the_other_is_no_shear(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    path = save(tmp_path / "scan.nii", np.ones((3, 4, 5), np.float32))
    content = bytearray(path.read_bytes())
    content[252:256] = np.array(codes, np.int16).tobytes()  # qform_code, sform_code
    turned = np.diag([-1, -1, 1]) @ Rotation.from_euler("z", 10, degrees=True).as_matrix()
    content[280:328] = np.c_[turned, (30, 0, 0)].astype(np.float32).tobytes()
    path.write_bytes(content)
    header, image = read_header(path), read_image([path])
    assert header is not None
    assert not header.skewed
    assert header.by_sform == (image.grid.origin_lps_mm[0] == pytest.approx(-30))
    assert (header.contradiction_mm > 0) == (codes[0] == codes[1])


@pytest.mark.parametrize("codes", [(0, 1), (1, 1), (0, 2)])
def test_the_voxels_of_the_sform_are_taken_where_it_is(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    path = save(tmp_path / "scan.nii", np.ones((3, 4, 5), np.float32))
    content = bytearray(path.read_bytes())
    content[252:256] = np.array(codes, np.int16).tobytes()  # qform_code, sform_code
    content[280:328] = np.c_[np.diag([2, 3, 4]), (30, 0, 0)].astype(np.float32).tobytes()
    path.write_bytes(content)
    header, image = read_header(path), read_image([path])
    assert header is not None
    assert header.contradiction_mm > 0  # pixdim has 1 mm
    assert image.grid.spacing_zyx_mm == header.spacing_zyx_mm == (4, 3, 2)
    write_labels(tmp_path / "labels.nii", LabelVolume(np.ones((3, 4, 5), np.uint8), image.grid), ())
    written = (tmp_path / "labels.nii").read_bytes()[280:328]
    np.testing.assert_array_equal(
        np.frombuffer(written, np.float32).reshape(3, 4)[:, :3], np.diag([2, 3, 4])
    )


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", [(1, 4), (2, 1), (4, 4), (0, 2), (0, 0), (1, 0)])
def test_labels_lie_where_their_image_does_by_either_form(
    tmp_path: Path, codes: tuple[int, int], ending: str
) -> None:
    path = save(tmp_path / "scan.nii", np.ones((3, 4, 5), np.float32))
    content = bytearray(path.read_bytes())
    content[252:256] = np.array(codes, np.int16).tobytes()  # qform_code, sform_code
    content[256:280] = np.array([0.1, 0, 0.2, 7, 8, 9], np.float32).tobytes()
    turned = np.diag([-1, -1, 1]) @ Rotation.from_euler("z", 10, degrees=True).as_matrix()
    content[280:328] = np.c_[turned, (30, 0, 0)].astype(np.float32).tobytes()
    path.write_bytes(content)
    image = read_image([path])
    labels = LabelVolume(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), image.grid)
    for name in ("one", "two"):
        write_labels(tmp_path / f"{name}{ending}", labels, (), like=path)
    written = (tmp_path / f"one{ending}").read_bytes()
    assert written == (tmp_path / f"two{ending}").read_bytes()
    header = gzip.decompress(written) if ending == ".nii.gz" else written
    assert header[252:328] == content[252:328]
    found = read_labels(tmp_path / f"one{ending}")
    assert found.grid == image.grid
    np.testing.assert_array_equal(found.array, labels.array)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("size", [348, 540])
def test_a_place_is_taken_from_either_version_and_byte_order(
    tmp_path: Path, size: int, order: str
) -> None:
    header = np.zeros(1, PLACES[size].newbyteorder(order))
    header["qform_code"], header["sform_code"], header["pixdim"] = 1, 4, [-1, 1, 2, 3]
    header["srow"], header["quatern"], header["xyzt_units"] = np.arange(12) / 4, [0, 0.5, 0.25], 2
    content = bytearray(header.tobytes())
    content[:4] = np.array(size, f"{order}i4").tobytes()
    (tmp_path / "scan.nii").write_bytes(content)
    labels = save(tmp_path / "labels.nii.gz", np.ones((3, 4, 5), np.float32))
    copy_place(tmp_path / "scan.nii", labels)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(labels))
    reader.ReadImageInformation()
    found = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    assert (found["qform_code"], found["sform_code"], found["xyzt_units"]) == ("1", "4", "2")
    assert (found["srow_y"], found["quatern_c"]) == ("1 1.25 1.5 1.75", "0.5")
    assert reader.GetSpacing() == (1, 2, 3)


def test_micrometres_of_an_sform_are_no_other_voxels(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", np.ones((3, 4, 5), np.float32))
    content = bytearray(path.read_bytes())
    content[76:92] = np.array([1, 500, 500, 500], np.float32).tobytes()  # pixdim
    content[123] = 3  # xyzt_units
    content[252:256] = np.array([0, 1], np.int16).tobytes()  # qform_code, sform_code
    content[280:328] = np.c_[500 * np.eye(3), (0, 0, 0)].astype(np.float32).tobytes()
    path.write_bytes(content)
    header = read_header(path)
    assert header is not None
    assert (header.contradiction_mm, header.spacing_zyx_mm) == (0, pytest.approx((0.5, 0.5, 0.5)))


def test_a_coloured_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", np.ones((3, 4, 5 * 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[42:44] = np.array([5], np.int16).tobytes()  # dim[1]
    content[70:74] = np.array([128, 24], np.int16).tobytes()  # datatype, bitpix: RGB
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="colour"):
        read_image([path])


def test_a_name_in_another_encoding_is_a_fault_of_the_file(tmp_path: Path, blob, oblique) -> None:
    path = tmp_path / os.fsdecode(b"M\xfcller.nii.gz")
    (tmp_path / "plain.nii.gz").write_bytes(b"")
    (tmp_path / "plain.nii.gz").rename(path)
    assert read_header(path) is None
    with pytest.raises(
        UnreadableImage, match=r"M\\udcfcller\.nii\.gz' is a name in another encoding"
    ):
        read_image([path])


def test_the_last_of_an_odd_number_of_voxels_is_looked_at_too(tmp_path: Path) -> None:
    array = np.ones((3, 5, 7), np.float32)
    array[-1, -1, -1] = np.nan
    with pytest.raises(NonFiniteImage):
        read_image([save(tmp_path / "scan.nii", array)])


def test_a_missing_file_and_an_unknown_format_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"none\.nii"):
        read_image([tmp_path / "none.nii"])
    with pytest.raises(UnsupportedFormat, match=r"scan\.png"):
        read_image([tmp_path / "scan.png"])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_a_nifti_file_is_not_passed_over(tmp_path: Path, value: float, kind: type) -> None:
    array = np.ones((3, 4, 5), kind)
    array[-1, -1, -1] = value
    with pytest.raises(NonFiniteImage, match="scan"):
        read_image([save(tmp_path / "scan.nii.gz", array)])


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0])
def test_a_label_that_is_no_small_whole_number_is_refused(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 1, 1] = value
    with pytest.raises(UnexpectedLabel, match="label"):
        read_labels(save(tmp_path / "label.nii.gz", array))


def test_labels_saved_as_floats_are_read(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float64).reshape(3, 4, 5)
    assert np.array_equal(read_labels(save(tmp_path / "label.nii", array)).array, array)


@pytest.mark.parametrize("padding", [0, 1], ids=["cut off", "zeros"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, blob, oblique: Grid, monkeypatch: pytest.MonkeyPatch, padding: int
) -> None:
    labels = blob(oblique)
    path = tmp_path / "a.nii"
    write_labels(path, labels, ())
    before = path.read_bytes()

    def full(image: object, name: str, **options: object) -> None:
        # Some of ITK's writers stop in silence.
        Path(name).write_bytes(before[:500] + bytes(padding * (len(before) - 500)))

    def no_room(beside: Path, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volume_module.sitk, "WriteImage", full)
    with pytest.raises(NotWritable):
        write_labels(path, labels, ())
    monkeypatch.setattr(volume_module, "_claim", no_room)
    with pytest.raises(DiskFull):
        write_labels(path, labels, ())
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.labels.json", "a.nii"]


@pytest.mark.parametrize("step", range(1, 8))
def test_labels_are_never_there_with_the_words_of_others(
    tmp_path: Path, blob, oblique: Grid, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "a.nii"
    write_labels(path, blob(oblique), (), {"version": "heart:1"})
    sync, calls = files.sync, []

    def stopped(target: Path) -> None:
        calls.append(target)
        if len(calls) == step:
            raise KeyboardInterrupt
        sync(target)

    for module in (files, volume_module):
        monkeypatch.setattr(module, "sync", stopped)
    with pytest.raises(KeyboardInterrupt) if step < 7 else nullcontext():
        write_labels(path, blob(oblique), (), {"version": "heart:2"})
    words = (tmp_path / "a.labels.json").read_text()
    assert not path.exists() or ("heart:1" in words) == (step < 3)
    assert len(calls) == min(step, 6)


def test_a_folder_has_no_header_and_no_complaint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert read_header(tmp_path) is None
    assert capfd.readouterr() == ("", "")


def test_labels_are_never_there_without_what_their_values_mean(
    tmp_path: Path, blob, oblique: Grid
) -> None:
    (tmp_path / "a.labels.json").mkdir()  # which no file can take the place of
    with pytest.raises(NotWritable):
        write_labels(tmp_path / "a.nii", blob(oblique), ())
    assert not (tmp_path / "a.nii").exists()


def test_an_unknown_output_format_writes_nothing(tmp_path: Path, blob, oblique: Grid) -> None:
    with pytest.raises(UnsupportedFormat):
        write_labels(tmp_path / "a.png", blob(oblique), ())
    assert not list(tmp_path.iterdir())


def test_canonical_axes_are_those_nearest_to_lps_and_no_voxel_moves(any_grid: Grid, blob) -> None:
    labels = blob(any_grid)
    turned = canonical(labels)
    reference = sitk.GetImageFromArray(labels.array)
    reference.SetSpacing(any_grid.spacing_zyx_mm[::-1])
    reference.SetOrigin(any_grid.origin_lps_mm)
    reference.SetDirection(any_grid.direction_lps)
    reference = sitk.DICOMOrient(reference, "LPS")
    assert np.array_equal(turned.array, sitk.GetArrayFromImage(reference))
    assert turned.grid.origin_lps_mm == pytest.approx(reference.GetOrigin())
    assert turned.grid.spacing_zyx_mm == pytest.approx(reference.GetSpacing()[::-1])
    assert turned.grid.direction_lps == pytest.approx(reference.GetDirection())


def test_image_and_label_are_turned_alike(any_grid: Grid, blob) -> None:
    labels = blob(any_grid)
    image = ImageVolume(np.stack([labels.array, labels.array * 2]).astype(np.float32), any_grid)
    turned = canonical(image)
    assert np.array_equal(turned.array[1], canonical(labels).array * 2.0)
    assert turned.grid == canonical(labels).grid


def test_a_mismatch_says_how_far_the_corners_are_apart(oblique: Grid) -> None:
    moved = replace(oblique, origin_lps_mm=(40.1, -25.0, 110.0))  # 0.1 of 1.2 mm allowed
    oblique.require_match(moved, "image", "label")
    moved = replace(oblique, origin_lps_mm=(40.5, -25.0, 110.0))
    with pytest.raises(GeometryMismatch, match=r"up to 0\.5 mm apart"):
        oblique.require_match(moved, "image", "label")
    # A slightly longer voxel only shows at the far corner.
    longer = replace(oblique, spacing_zyx_mm=(3.02, 1.2, 1.6))
    assert oblique.displacement_mm(longer) == pytest.approx(0.02 * 19)
    with pytest.raises(GeometryMismatch):
        oblique.require_match(longer, "image", "label")


def test_labels_with_several_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="2 channels"):
        read_labels(save(tmp_path / "label.nii", np.ones((2, 3, 4, 5), np.uint8)))


def test_grids_of_other_shapes_never_match(oblique: Grid) -> None:
    labels = LabelVolume(np.zeros((1, 1, 1), np.uint8), replace(oblique, shape_zyx=(1, 1, 1)))
    assert not oblique.matches(labels.grid, tolerance_mm=1e9)
