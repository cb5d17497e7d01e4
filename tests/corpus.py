"""Data sets with faults that hospitals produce, one folder each, and what has to be said of them.

    python tests/corpus.py DIR

writes them all. Every fault is put into case c_1 of a sound CT data set of four cases.
"""

from __future__ import annotations

import gzip
import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

SHAPE = (10, 12, 14)
DOMAIN_TOML = """\
name = "organs"
description = "two organs"
modality = "CT"
channels = ["CT"]
labels = [{ name = "liver", values = [1] }, { name = "spleen", values = [2] }]
intensity = { statistics = "dataset" }
data = { dataset = "made up", licence = "CC0-1.0" }
"""
# Byte offsets and types of a NIfTI-1 header.
DIM, PIXDIM, QFORM_CODE, SROW_X, MAGIC = (40, "<8h"), (76, "<8f"), (252, "<hh"), (280, "<12f"), 344

Fault = Callable[[Path, Path], object]  # image and label of case c_1; the data set lies above
FAULTS: dict[str, tuple[Fault, str, str]] = {}  # name → what it does, the error's name, severity
SOUND: dict[str, Fault] = {}  # odd, but nothing is wrong


def fault(code: str, severity: str = "error") -> Callable[[Fault], Fault]:
    def note(spoil: Fault) -> Fault:
        FAULTS[spoil.__name__] = (spoil, code, severity)
        return spoil

    return note


def sound(change: Fault) -> Fault:
    SOUND[change.__name__] = change
    return change


def write_sound(folder: Path) -> tuple[Path, Path]:
    """Write the data set `folder` without a fault; image and label of its case c_1."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(4):
        labels = np.zeros(SHAPE, np.uint8)
        labels[2:6, 3:8, 2:6], labels[5:8, 3:8, 8:12] = 1, 2
        labels[6, 3, 2 + number] = 1  # no two patients are alike
        noise = np.random.default_rng(number).normal(0, 20, SHAPE)
        image = np.where(labels > 0, 60.0, -700.0) + noise
        for part, array in (("imagesTr", image.astype(np.int16)), ("labelsTr", labels)):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1.5, 1.5, 2.0))
            volume.SetOrigin((-20.0, 30.0, 100.0))
            sitk.WriteImage(volume, str(folder / part / f"c_{number}.nii.gz"))
    describe(folder)
    return folder / "imagesTr/c_1.nii.gz", folder / "labelsTr/c_1.nii.gz"


def describe(folder: Path, **changes: Any) -> None:
    names = [f"c_{number}.nii.gz" for number in range(4)]
    content = {
        "name": "Organs",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": [{"image": f"imagesTr/{n}", "label": f"labelsTr/{n}"} for n in names],
    }
    (folder / "dataset.json").write_text(json.dumps(content | changes), encoding="utf-8")


def top(path: Path) -> Path:
    return path.parents[1]


def patch(path: Path, field: tuple[int, str], change: Callable[[list[Any]], list[Any]]) -> None:
    """Change one field of a NIfTI header."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    offset, kind = field
    values = list(struct.unpack_from(kind, content, offset))
    struct.pack_into(kind, content, offset, *change(values))
    path.write_bytes(gzip.compress(bytes(content)))


def revalue(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the voxels and keep the grid."""
    old = sitk.ReadImage(str(path))
    new = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(old)))
    new.CopyInformation(old)
    sitk.WriteImage(new, str(path))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the image as a whole."""
    sitk.WriteImage(change(sitk.ReadImage(str(path))), str(path))


def only_sform(rows: np.ndarray) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        patch(path, QFORM_CODE, lambda _: [0, 1])
        patch(path, SROW_X, lambda _: rows.ravel().tolist())

    return apply


def skewed(by: float) -> np.ndarray:
    """The sform of the sound images, its second axis tilted towards the first."""
    return np.array([[-1.5, -1.5 * by, 0, 20], [0, -1.5, 0, -30], [0, 0, 2, 100]], np.float64)


# Files --------------------------------------------------------------------------------------------


@fault("UnreadableImage")
def cut_off_while_copied(image: Path, label: Path) -> None:
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


@fault("UnreadableImage")
def label_cut_off_while_copied(image: Path, label: Path) -> None:
    label.write_bytes(label.read_bytes()[: label.stat().st_size // 2])


@fault("UnreadableImage")
def no_bytes(image: Path, label: Path) -> None:
    image.write_bytes(b"")


@fault("UnreadableImage")
def text_with_an_image_s_name(image: Path, label: Path) -> None:
    image.write_text("see the mail of last week")


@fault("UnreadableImage")
def login_page_instead_of_the_download(image: Path, label: Path) -> None:
    image.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")


@fault("UnreadableImage")
def archive_with_an_image_s_name(image: Path, label: Path) -> None:
    content = image.read_bytes()
    with zipfile.ZipFile(image, "w") as archive:
        archive.writestr("c_1.nii.gz", content)


@fault("UnreadableImage")
def one_byte_of_the_compressed_data_flipped(image: Path, label: Path) -> None:
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 0xFF
    image.write_bytes(bytes(content))


@fault("UnreadableImage")
def checksum_of_the_compressed_data_wrong(image: Path, label: Path) -> None:
    content = bytearray(image.read_bytes())
    content[-6] ^= 0xFF
    image.write_bytes(bytes(content))


@fault("UnreadableImage")
def whole_archive_of_a_volume_that_was_cut_off(image: Path, label: Path) -> None:
    image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes())[:-500]))


@fault("UnreadableImage")
def header_alone(image: Path, label: Path) -> None:
    image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes())[:352]))


@fault("UnreadableImage")
def header_promises_more_slices_than_there_are(image: Path, label: Path) -> None:
    patch(image, DIM, lambda dim: [*dim[:3], dim[3] + 5, *dim[4:]])


@fault("GeometryMismatch")
def negative_size(image: Path, label: Path) -> None:
    patch(image, DIM, lambda dim: [*dim[:2], -dim[2], *dim[3:]])


@fault("GeometryMismatch")  # without it the format is an older one, which has no place
def other_magic_number(image: Path, label: Path) -> None:
    patch(image, (MAGIC, "<4s"), lambda _: [b"NRRD"])


@fault("UnreadableImage")
def voxels_that_begin_within_the_header(image: Path, label: Path) -> None:
    patch(image, (108, "<f"), lambda _: [100.0])


@fault("ContradictoryPlace", "warning")
def two_places_in_one_header(image: Path, label: Path) -> None:
    for path in (image, label):
        patch(path, QFORM_CODE, lambda _: [1, 1])
        patch(path, SROW_X, lambda rows: [*rows[:3], rows[3] + 40.0, *rows[4:]])


@fault("UnreadableImage")
def unknown_type_of_voxels(image: Path, label: Path) -> None:
    patch(image, (70, "<h"), lambda _: [1234])


@fault("MissingFile")
def image_missing(image: Path, label: Path) -> None:
    image.unlink()


@fault("MissingFile")
def label_missing(image: Path, label: Path) -> None:
    label.unlink()


@fault("MissingFile")
def link_to_a_file_that_moved(image: Path, label: Path) -> None:
    image.unlink()
    image.symlink_to("/mnt/old-server/c_1.nii.gz")


@fault("MissingFile")
def links_in_a_circle(image: Path, label: Path) -> None:
    image.unlink()
    image.symlink_to(image)


@fault("NoDicom")
def folder_with_an_image_s_name(image: Path, label: Path) -> None:
    image.unlink()
    image.mkdir()


# Intensities --------------------------------------------------------------------------------------


def one_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[3, 4, 5] = value
        return array

    return put


@fault("NonFiniteImage")
def one_voxel_that_is_no_number(image: Path, label: Path) -> None:
    revalue(image, one_voxel(np.nan))


@fault("NonFiniteImage")
def one_infinite_voxel(image: Path, label: Path) -> None:
    revalue(image, one_voxel(np.inf))


@fault("EmptyImage")
def nothing_but_zeros(image: Path, label: Path) -> None:
    revalue(image, np.zeros_like)


@fault("EmptyImage")
def one_value_everywhere(image: Path, label: Path) -> None:
    revalue(image, lambda array: np.full_like(array, -1024))


@fault("SuspiciousIntensities", "warning")
def window_of_eight_bits(image: Path, label: Path) -> None:
    revalue(image, lambda array: np.clip((array + 160) / 400 * 255, 0, 255).astype(np.uint8))


@fault("SuspiciousIntensities", "warning")
def rescale_intercept_left_out(image: Path, label: Path) -> None:
    revalue(image, lambda array: (array + 1024).astype(np.uint16))


@fault("WrongChannels")
def two_volumes_in_one_file(image: Path, label: Path) -> None:
    rewrite(image, lambda volume: sitk.JoinSeries([volume, volume]))


@fault("WrongChannels")
def photograph_in_colour(image: Path, label: Path) -> None:
    rewrite(image, lambda v: sitk.Compose([sitk.Cast(v, sitk.sitkUInt8)] * 3))


@fault("UnreadableImage")
def single_picture(image: Path, label: Path) -> None:
    rewrite(image, lambda volume: volume[:, :, 4])


# Geometry -----------------------------------------------------------------------------------------


@fault("GeometryMismatch")
def label_moved_by_three_millimetres(image: Path, label: Path) -> None:
    def move(volume: Any) -> Any:
        volume.SetOrigin([place + 3 for place in volume.GetOrigin()])
        return volume

    rewrite(label, move)


@fault("GeometryMismatch")
def label_lacks_a_slice(image: Path, label: Path) -> None:
    rewrite(label, lambda volume: volume[:, :, 1:])


@fault("GeometryMismatch")
def label_on_a_grid_of_its_own(image: Path, label: Path) -> None:
    rewrite(label, lambda volume: sitk.Resample(volume, [7, 6, 10], outputSpacing=(3, 3, 2)))


@fault("GeometryMismatch")
def label_mirrored_in_its_header(image: Path, label: Path) -> None:
    def mirror(volume: Any) -> Any:
        volume.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
        return volume

    rewrite(label, mirror)


@fault("GeometryMismatch")
def label_without_a_geometry(image: Path, label: Path) -> None:
    rewrite(label, lambda v: sitk.GetImageFromArray(sitk.GetArrayFromImage(v)))


@fault("GeometryMismatch")
def label_turned_by_ninety_degrees(image: Path, label: Path) -> None:
    rewrite(label, lambda volume: sitk.PermuteAxes(volume, [1, 0, 2]))


@fault("UnreadableImage")
def sheared_header(image: Path, label: Path) -> None:
    for path in (image, label):
        only_sform(skewed(0.3))(path)


@fault("SkewedAxes", "warning")
def axes_not_quite_at_right_angles(image: Path, label: Path) -> None:
    for path in (image, label):
        only_sform(skewed(0.01))(path)


@fault("UnreadableImage")
def axes_of_no_length(image: Path, label: Path) -> None:
    only_sform(np.zeros((3, 4)))(image)


@fault("UnreadableImage")
def place_that_is_no_number(image: Path, label: Path) -> None:
    only_sform(np.full((3, 4), np.nan))(image)


def respaced(factor: float) -> Fault:
    def apply(image: Path, label: Path) -> None:
        for path in (image, label):

            def change(volume: Any) -> Any:
                volume.SetSpacing([side * factor for side in volume.GetSpacing()])
                return volume

            rewrite(path, change)

    return apply


@fault("SpacingOutlier", "warning")
def spacing_in_metres(image: Path, label: Path) -> None:
    respaced(0.001)(image, label)


@fault("SpacingOutlier", "warning")
def spacing_in_micrometres(image: Path, label: Path) -> None:
    respaced(1000)(image, label)


@fault("SpacingOutlier", "warning")
def single_slice(image: Path, label: Path) -> None:
    for path in (image, label):
        rewrite(path, lambda volume: volume[:, :, 5:6])


# Labels -------------------------------------------------------------------------------------------


def some_voxels(value: float, kind: type) -> Callable[[np.ndarray], np.ndarray]:
    def put(array: np.ndarray) -> np.ndarray:
        array = array.astype(kind)
        array[0, :3] = value
        return array

    return put


@fault("SuspiciousIntensities", "warning")
def ct_that_was_normalised(image: Path, label: Path) -> None:
    revalue(image, lambda array: ((array + 600) / 300).astype(np.float32))


@fault("SuspiciousIntensities", "warning")
def ct_that_was_cut_to_a_window(image: Path, label: Path) -> None:
    revalue(image, lambda array: np.clip(array, -160, 240))


@fault("SuspiciousIntensities", "warning")
def nothing_but_a_single_voxel(image: Path, label: Path) -> None:
    revalue(image, lambda array: np.where(np.arange(array.size).reshape(array.shape), 0, -1000))


@fault("UnexpectedLabel")
def value_that_nobody_named(image: Path, label: Path) -> None:
    revalue(label, some_voxels(7, np.uint8))


@fault("UnexpectedLabel")
def mask_of_0_and_255(image: Path, label: Path) -> None:
    revalue(label, lambda array: np.where(array > 0, 255, 0).astype(np.uint8))


@fault("UnexpectedLabel")
def negative_value(image: Path, label: Path) -> None:
    revalue(label, some_voxels(-1, np.int16))


@fault("UnexpectedLabel")
def half_a_class_between_two(image: Path, label: Path) -> None:
    revalue(label, some_voxels(0.5, np.float32))


@fault("UnexpectedLabel")
def probabilities_instead_of_classes(image: Path, label: Path) -> None:
    revalue(label, lambda array: (array * 0.49).astype(np.float32))


@fault("UnexpectedLabel")
def image_instead_of_its_label(image: Path, label: Path) -> None:
    label.write_bytes(image.read_bytes())


@fault("NonFiniteImage")
def label_that_is_no_number(image: Path, label: Path) -> None:
    revalue(label, some_voxels(np.nan, np.float32))


@fault("EmptyLabel")
def nothing_drawn(image: Path, label: Path) -> None:
    revalue(label, np.zeros_like)


@fault("MissingClass", "warning")
def one_organ_not_drawn(image: Path, label: Path) -> None:
    revalue(label, lambda array: np.where(array == 2, 0, array))


@fault("MissingClass")
def one_organ_drawn_nowhere(image: Path, label: Path) -> None:
    for path in label.parent.iterdir():
        revalue(path, lambda array: np.where(array == 2, 0, array))


# Data sets ----------------------------------------------------------------------------------------


@fault("DuplicateCase")
def same_patient_under_two_names(image: Path, label: Path) -> None:
    for path in (image, label):
        path.with_name("c_3.nii.gz").write_bytes(path.read_bytes())


@fault("DuplicateCase")
def same_voxels_in_another_type(image: Path, label: Path) -> None:
    same_patient_under_two_names(image, label)
    revalue(image, lambda array: array.astype(np.float64))


@fault("InvalidDataset")
def no_description(image: Path, label: Path) -> None:
    (top(image) / "dataset.json").unlink()


@fault("InvalidDataset")
def description_cut_off(image: Path, label: Path) -> None:
    file = top(image) / "dataset.json"
    file.write_text(file.read_text()[:-40])


@fault("InvalidDataset")
def description_in_another_encoding(image: Path, label: Path) -> None:
    file = top(image) / "dataset.json"
    file.write_text(file.read_text(), encoding="utf-16")


@fault("InvalidDataset")
def no_case_listed(image: Path, label: Path) -> None:
    describe(top(image), training=[])


@fault("InvalidDataset")
def case_listed_twice(image: Path, label: Path) -> None:
    entry = {"image": "imagesTr/c_1.nii.gz", "label": "labelsTr/c_1.nii.gz"}
    describe(top(image), training=[entry, entry])


@fault("InvalidDataset")
def overlapping_regions(image: Path, label: Path) -> None:
    describe(top(image), labels={"background": 0, "both": [1, 2], "spleen": 2})


@fault("InvalidDataset")
def file_outside_the_data_set(image: Path, label: Path) -> None:
    image.rename(top(image).parent / "c_1.nii.gz")
    entry = {"image": "../c_1.nii.gz", "label": "labelsTr/c_1.nii.gz"}
    describe(top(image), training=[entry])


@fault("InvalidDataset")
def path_of_the_machine_it_was_written_on(image: Path, label: Path) -> None:
    moved = image.rename(top(image).parent / "c_1.nii.gz")
    describe(top(image), training=[{"image": str(moved), "label": "labelsTr/c_1.nii.gz"}])


@fault("InvalidDataset")
def description_without_an_end(image: Path, label: Path) -> None:
    (top(image) / "dataset.json").write_text("[" * 100_000)


@fault("InvalidDataset")
def name_longer_than_a_file_may_have(image: Path, label: Path) -> None:
    describe(top(image), training=[{"image": f"imagesTr/{'c' * 5000}.nii.gz"}])


@fault("WrongModality", "warning")
def data_set_of_another_modality(image: Path, label: Path) -> None:
    describe(top(image), modality={"0": "MRI"})


@fault("DuplicateCase")
def training_case_among_the_test_cases(image: Path, label: Path) -> None:
    describe(top(image), test=["imagesTr/c_3.nii.gz"])


@fault("DuplicateCase", "warning")
def labels_of_another_patient(image: Path, label: Path) -> None:
    label.write_bytes(label.with_name("c_0.nii.gz").read_bytes())


@fault("UnsupportedFormat")
def file_of_another_kind(image: Path, label: Path) -> None:
    (top(image) / "imagesTr/c_1.jpg").write_bytes(b"\xff\xd8\xff")
    names = [f"c_{number}.nii.gz" for number in range(4)]
    entries = [{"image": f"imagesTr/{n}", "label": f"labelsTr/{n}"} for n in names]
    entries[1]["image"] = "imagesTr/c_1.jpg"
    describe(top(image), training=entries)


# Nothing wrong ------------------------------------------------------------------------------------


@sound
def the_other_order_of_bytes(image: Path, label: Path) -> None:
    content = gzip.decompress(image.read_bytes())
    header = bytearray(content[:352])
    for kind, offsets in (
        ("i", [0, 32]),
        ("h", [36, *range(40, 56, 2), 68, 70, 72, 74, 120, 252, 254]),
        ("f", [*range(56, 68, 4), *range(76, 120, 4), *range(124, 148, 4), *range(256, 328, 4)]),
    ):
        for offset in offsets:
            struct.pack_into(
                f">{kind}", header, offset, *struct.unpack_from(f"<{kind}", header, offset)
            )
    voxels = np.frombuffer(content[352:], "<i2").astype(">i2").tobytes()
    image.write_bytes(gzip.compress(bytes(header) + voxels))


@sound
def blanks_and_umlauts_in_names(image: Path, label: Path) -> None:
    names = [f"c_{number}.nii.gz" for number in range(4)]
    entries = [{"image": f"imagesTr/{n}", "label": f"labelsTr/{n}"} for n in names]
    for path in (image, label):
        path.rename(path.with_name("Müller, 3. Aufnahme.nii.gz"))
    odd = "Müller, 3. Aufnahme.nii.gz"
    entries[1] = {"image": f"imagesTr/{odd}", "label": f"labelsTr/{odd}"}
    describe(top(image), training=entries)


@sound
def oblique_axes(image: Path, label: Path) -> None:
    c, s = np.cos(0.3), np.sin(0.3)

    def tilt(volume: Any) -> Any:
        volume.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
        return volume

    for path in (image, label):
        rewrite(path, tilt)


@sound
def label_with_whole_numbers_as_floats(image: Path, label: Path) -> None:
    revalue(label, lambda array: array.astype(np.float32))


@sound
def header_rounded_to_four_digits(image: Path, label: Path) -> None:
    only_sform(skewed(0.0001))(image)


def write_corpus(folder: Path) -> None:
    for name, (spoil, _, _) in FAULTS.items():
        spoil(*write_sound(folder / name))


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]))
