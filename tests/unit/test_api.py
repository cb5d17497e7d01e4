"""What a notebook sees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

import u2net_platform
from u2net_platform.errors import (
    AmbiguousSeries,
    NeedsDicom,
    NotWritable,
    UnknownDomain,
    WrongChannels,
)
from u2net_platform.imaging.volume import read_labels, write_array


def test_a_version_is_loaded_and_predicts_in_three_lines(
    publish_bright, scan, tmp_path: Path
) -> None:
    record = publish_bright()
    write_array(tmp_path / "scan.nii.gz", scan.array, scan.grid)

    model = u2net_platform.load("bright", device="cpu")
    assert repr(model) == "<Model bright:1>"
    labels = model.predict(tmp_path / "scan.nii.gz", output=tmp_path / "labels.nii.gz")

    assert model.record == record
    assert model.classes == ("background", "organ")
    assert labels.grid.matches(scan.grid)
    written = read_labels(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(written.array, labels.array)
    again = model.predict([str(tmp_path / "scan.nii.gz")])
    np.testing.assert_array_equal(again.array, labels.array)
    from_memory = model.predict(scan)
    assert (from_memory.array == labels.array).mean() > 0.999  # files round a grid's numbers


def test_dicom_is_read_and_written_as_on_the_command_line_and_nothing_else_is_taken_for_it(
    publish_bright, scan, write_series, tmp_path: Path
) -> None:
    publish_bright()
    model = u2net_platform.load("bright", device="cpu")
    folder = write_series(tmp_path / "dicom", scan.array[0].round(), scan.grid)
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    model.predict(folder, output=tmp_path / "labels.dcm", series=[uid])
    assert pydicom.dcmread(tmp_path / "labels.dcm").SeriesDescription.endswith("bright:1")
    write_array(tmp_path / "scan.nii.gz", scan.array, scan.grid)
    with pytest.raises(NeedsDicom, match="has no series"):
        model.predict(tmp_path / "scan.nii.gz", series=[uid])
    model._loaded.predictor.network = None  # what follows is refused before any work
    with pytest.raises(NeedsDicom, match=r"b\.dcm"):
        model.predict(tmp_path / "scan.nii.gz", output=tmp_path / "b.dcm")


def test_an_image_is_never_replaced_and_other_files_on_request_alone(
    publish_bright, scan, write_series, tmp_path: Path
) -> None:
    publish_bright()
    model = u2net_platform.load("bright", device="cpu")
    image, link = tmp_path / "scan.nii.gz", tmp_path / "link.nii.gz"
    write_array(image, scan.array, scan.grid)
    link.symlink_to(image)
    before = image.read_bytes()
    folder = write_series(tmp_path / "dicom", scan.array[0].round(), scan.grid)
    for path, output in ((image, image), (link, image), (image, link), (folder, folder / "a.dcm")):
        with pytest.raises(NotWritable, match=r"input and output|among the slices"):
            model.predict(path, output=output, overwrite=True)
    (tmp_path / "mine.nrrd").write_text("precious")
    with pytest.raises(NotWritable, match=r"mine\.nrrd exists already"):
        model.predict(image, output=tmp_path / "mine.nrrd")
    assert (image.read_bytes(), (tmp_path / "mine.nrrd").read_text()) == (before, "precious")
    model.predict(image, output=tmp_path / "mine.nrrd", overwrite=True)
    assert read_labels(tmp_path / "mine.nrrd").array.any()


def test_what_is_odd_about_an_image_is_a_warning_and_stands_beside_its_labels(
    publish_bright, scan, tmp_path: Path
) -> None:
    publish_bright()
    model = u2net_platform.load("bright", device="cpu")
    image = replace(scan, array=scan.array - 1500)
    with pytest.warns(UserWarning, match="The image is declared as MR") as told:
        model.predict(image)
    assert told[0].filename == __file__  # whose line asked for it
    write_array(tmp_path / "scan.nii.gz", image.array, image.grid)
    with pytest.warns(UserWarning, match=r"scan\.nii\.gz is declared as MR"):
        model.predict(tmp_path / "scan.nii.gz", output=tmp_path / "labels.nii.gz")
    assert len(json.loads((tmp_path / "labels.labels.json").read_text())["warnings"]) == 1


def test_a_folder_of_dicom_may_be_given_for_each_channel(
    publish_bright, scan, write_series, tmp_path: Path
) -> None:
    publish_bright()
    model = u2net_platform.load("bright", device="cpu")
    folders = [
        write_series(tmp_path / name, scan.array[0].round(), scan.grid) for name in ("T1", "T2")
    ]
    uids = [pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID for folder in folders]
    for named in ([], uids):
        with pytest.raises(WrongChannels, match="has 2 channels"):
            model.predict(folders, series=named)
    with pytest.raises(AmbiguousSeries, match="1 series are named for 2 folders"):
        model.predict(folders, series=uids[:1])


def test_what_is_not_there_is_said(settings) -> None:
    with pytest.raises(UnknownDomain):
        u2net_platform.load("nose")
    with pytest.raises(AttributeError, match="nose"):
        u2net_platform.nose  # noqa: B018
    assert u2net_platform.Catalog.open().domains.list() == []  # of the home
