from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from u2net_platform.data.checkup import check_dataset
from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import NotWritable
from u2net_platform.imaging.volume import read_image, read_labels
from u2net_platform.testing.contract import check_plugin
from u2net_platform.testing.phantoms import (
    PHANTOMS,
    TEST_CASES,
    write_phantom,
    write_phantom_plugin,
)

phantoms = pytest.mark.parametrize("kind", PHANTOMS)


@phantoms
def test_a_phantom_is_a_sound_msd_folder_for_its_plugin(kind: str, tmp_path: Path) -> None:
    dataset = open_dataset(write_phantom(kind, tmp_path, cases=2, seed=0))
    plugin = DomainPlugin.load(write_phantom_plugin(kind, tmp_path / "plugins"))

    assert (len(dataset.training), len(dataset.test)) == (2, TEST_CASES)
    assert dataset.channels == plugin.spec.channels
    assert dataset.modality == plugin.spec.modality
    assert check_dataset(plugin, dataset, lambda _: None) == []


@phantoms
def test_a_phantoms_plugin_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    check_plugin(write_phantom_plugin(kind, tmp_path))


@phantoms
def test_no_threshold_finds_the_organ(kind: str, tmp_path: Path) -> None:
    dataset = open_dataset(write_phantom(kind, tmp_path, cases=1, seed=0))
    plugin = DomainPlugin.load(write_phantom_plugin(kind, tmp_path / "plugins"))
    image, labels = load_case(plugin, dataset.training[0])
    assert labels is not None
    organ = labels.array > 0

    dice = []
    for channel in image.array:
        levels = np.quantile(channel, np.linspace(0, 1, 30))
        for index, low in enumerate(levels):
            for high in levels[index + 1 :]:
                found = (channel >= low) & (channel <= high)
                dice.append(2 * (found & organ).sum() / (found.sum() + organ.sum()))
    assert max(dice) < 0.85


def test_the_phantoms_differ_in_spacing_orientation_channels_and_classes(tmp_path: Path) -> None:
    properties = set()
    for kind in PHANTOMS:
        case = open_dataset(write_phantom(kind, tmp_path, cases=1, seed=0)).training[0]
        image = read_image(case.images)
        assert case.label is not None
        classes = int(read_labels(case.label).array.max())
        facing = tuple(np.round(image.grid.direction_lps).astype(int).tolist())
        properties.add((image.grid.spacing_zyx_mm, facing, len(image.array), classes))
    for values in zip(*properties, strict=True):
        assert len(set(values)) >= 2
    spacings, facings, *_ = zip(*properties, strict=True)
    assert len(set(spacings)) == len(set(facings)) == len(PHANTOMS)


@phantoms
def test_the_organ_lies_where_the_patient_has_it_whatever_the_axes(
    kind: str, tmp_path: Path
) -> None:
    """The CT organ lies on the patient's right, the low end of x once the axes are canonical."""
    dataset = open_dataset(write_phantom(kind, tmp_path, cases=3, seed=0))
    plugin = DomainPlugin.load(write_phantom_plugin(kind, tmp_path / "plugins"))
    for case in dataset.training:
        _, labels = load_case(plugin, case)
        assert labels is not None
        centre = np.argwhere(labels.array).mean(axis=0) / labels.array.shape
        assert centre[2] < 0.45 if kind == "ct_organ" else 0.3 < centre[2] < 0.7


def test_the_tumour_is_a_value_of_its_own_that_the_plugin_merges(tmp_path: Path) -> None:
    case = open_dataset(write_phantom("ct_organ", tmp_path, cases=1, seed=0)).training[0]
    plugin = DomainPlugin.load(write_phantom_plugin("ct_organ", tmp_path / "plugins"))
    assert case.label is not None
    assert set(np.unique(read_labels(case.label).array)) == {0, 1, 2}
    merged = load_case(plugin, case)[1]
    assert merged is not None
    assert set(np.unique(merged.array)) == {0, 1}


def test_a_case_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    def voxels(folder: str, cases: int, seed: int, number: int) -> bytes:
        task = tmp_path / folder / "Task92_Twin"
        if not task.exists():
            write_phantom("twin", tmp_path / folder, cases, seed)
        return (task / "imagesTr" / f"twin_{number:03d}.nii.gz").read_bytes()

    assert voxels("few", 1, 7, 0) == voxels("more", 2, 7, 0)
    assert voxels("few", 1, 7, 0) != voxels("other", 1, 8, 0)
    assert voxels("more", 2, 7, 0) != voxels("more", 2, 7, 1)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "Task91_Ball").mkdir()
    with pytest.raises(NotWritable, match="Task91_Ball"):
        write_phantom("ball", tmp_path, cases=1, seed=0)
