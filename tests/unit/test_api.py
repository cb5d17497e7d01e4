"""What a notebook sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

import u2net_platform
from u2net_platform.errors import NeedsDicom, UnknownDomain
from u2net_platform.imaging.volume import read_labels, write_array


def test_a_version_is_loaded_and_predicts_in_three_lines(
    publish_bright, scan, tmp_path: Path
) -> None:
    record = publish_bright()
    write_array(tmp_path / "scan.nii.gz", scan.array, scan.grid)

    model = u2net_platform.load("bright", device="cpu")
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


def test_what_is_not_there_is_said(settings) -> None:
    with pytest.raises(UnknownDomain):
        u2net_platform.load("nose")
    with pytest.raises(AttributeError, match="nose"):
        u2net_platform.nose  # noqa: B018
    assert u2net_platform.Catalog.open(settings.database_url).domains.list() == []
