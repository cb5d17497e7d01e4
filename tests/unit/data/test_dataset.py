"""Folders as MSD and nnU-Net lay them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from u2net_platform.data.dataset import open_dataset
from u2net_platform.errors import InvalidDataset, MissingFile


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """An nnU-Net v2 folder of two cases with two channels, and one test case."""
    folder = tmp_path / "Dataset500_Brain"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for case in ("b_1", "a_2"):
        (folder / "labelsTr" / f"{case}.mha").touch()
        for channel in (0, 1):
            (folder / "imagesTr" / f"{case}_{channel:04d}.mha").touch()
            (folder / "imagesTs" / f"t_{channel:04d}.mha").touch()
    content = {
        "channel_names": {"1": "PD", "0": "T1w"},
        "labels": {"background": 0, "core": 2, "oedema": 1},
        "numTraining": 2,
        "file_ending": ".mha",
        "license": "CC-BY",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_an_msd_folder_opens(msd: Path) -> None:
    dataset = open_dataset(msd)
    assert (dataset.name, dataset.licence) == ("MadeUp", "CC0")
    assert dataset.channels == ("T2", "ADC")
    assert dataset.modality == "MR"
    assert dataset.labels == {1: "organ", 2: "tumour", 4: "gland"}
    assert [case.id for case in dataset.training] == ["a", "bb", "ccc"]
    assert dataset.training[0].images == (msd / "imagesTr" / "a.nii.gz",)
    assert dataset.training[0].label == msd / "labelsTr" / "a.nii.gz"
    assert [(case.id, case.label) for case in dataset.test] == [("d", None)]


def test_a_list_that_is_empty_hides_no_case(nnunet: Path) -> None:
    rewrite(nnunet, training=[], test=[])
    assert [case.id for case in open_dataset(nnunet).training] == ["a_2", "b_1"]


def test_an_nnunet_folder_opens(nnunet: Path) -> None:
    (nnunet / "imagesTr" / "._a_2_0000.mha").touch()  # what macOS leaves behind
    dataset = open_dataset(nnunet)
    assert (dataset.name, dataset.licence) == (nnunet.name, "CC-BY")
    assert dataset.channels == ("T1w", "PD")
    assert dataset.labels == {1: "oedema", 2: "core"}
    assert [case.id for case in dataset.training] == ["a_2", "b_1"]
    names = [path.name for path in dataset.training[0].images]
    assert names == ["a_2_0000.mha", "a_2_0001.mha"]
    assert [case.id for case in dataset.test] == ["t"]


def test_nnunet_of_the_first_generation_lists_cases_without_channel_numbers(msd: Path) -> None:
    for path in list((msd / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
        path.with_name(path.name.replace(".nii", "_0001.nii")).touch()
    names = [path.name for path in open_dataset(msd).training[1].images]
    assert names == ["bb_0000.nii.gz", "bb_0001.nii.gz"]


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        (["CT"], "CT"),
        (["PET", "CT"], "CT"),
        (["FDG-PET"], "PET"),
        (["MRI"], "MR"),
        (["T1-weighted"], "MR"),
        (["ultrasound"], "US"),
        (["photograph"], "other"),
    ],
)
def test_the_modality_follows_from_the_channels(msd: Path, names: list[str], modality: str) -> None:
    rewrite(msd, modality=dict(enumerate(names)))
    assert open_dataset(msd).modality == modality


def test_all_missing_files_are_named_at_once(msd: Path) -> None:
    (msd / "imagesTr" / "a.nii.gz").unlink()
    (msd / "labelsTr" / "ccc.nii.gz").unlink()
    with pytest.raises(InvalidDataset, match=r"2 files") as caught:
        open_dataset(msd)
    assert "imagesTr/a.nii.gz" in caught.value.message
    assert "labelsTr/ccc.nii.gz" in caught.value.message


def test_a_missing_channel_is_named(nnunet: Path) -> None:
    (nnunet / "imagesTr" / "a_2_0000.mha").unlink()
    with pytest.raises(InvalidDataset, match="a_2_0000"):
        open_dataset(nnunet)


def test_a_channel_too_many_stays_with_its_case(nnunet: Path) -> None:
    (nnunet / "imagesTr" / "a_2_0002.mha").touch()
    assert len(open_dataset(nnunet).training[0].images) == 3


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        open_dataset(tmp_path / "none")
    with pytest.raises(InvalidDataset, match=r"no dataset\.json"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": ')
    with pytest.raises(InvalidDataset, match="cannot be read"):
        open_dataset(tmp_path)


def test_a_broken_description_lists_its_faults(msd: Path) -> None:
    rewrite(msd, labels={}, training=[{"label": "x"}])
    with pytest.raises(InvalidDataset) as caught:
        open_dataset(msd)
    assert "labels" in caught.value.message and "training.0" in caught.value.message


def test_what_others_write_into_a_description_is_read(msd: Path) -> None:
    rewrite(msd, labels={"background": "0", "liver": "1"}, licence=None, reference=["One", "Two"])
    file = msd / "dataset.json"
    file.write_text("\ufeff" + file.read_text("utf-8"), "utf-8")  # an editor on Windows
    dataset = open_dataset(msd)
    assert (dataset.labels, dataset.licence) == ({1: "liver"}, "")
    assert dataset.reference == "One, Two"


def test_regions_are_refused(nnunet: Path) -> None:
    rewrite(nnunet, labels={"background": 0, "whole": [1, 2]})
    with pytest.raises(InvalidDataset, match="regions"):
        open_dataset(nnunet)


def test_a_case_named_twice_or_no_case_is_refused(msd: Path) -> None:
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    rewrite(msd, training=[entry, entry])
    with pytest.raises(InvalidDataset, match="a twice"):
        open_dataset(msd)
    rewrite(msd, training=[])
    with pytest.raises(InvalidDataset, match="no training case"):
        open_dataset(msd)
