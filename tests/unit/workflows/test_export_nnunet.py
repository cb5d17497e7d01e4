import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import IGNORED
from u2net_platform.errors import NotWritable, UnreadableImage
from u2net_platform.imaging.volume import read_labels, write_array
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin
from u2net_platform.workflows.export_nnunet import export_nnunet
from u2net_platform.workflows.new_domain import write_plugin


@pytest.mark.parametrize(
    ("kind", "folder", "channels", "labels"),
    [
        ("twin", "Dataset007_Twin", ("T2", "ADC"), {1: "outer zone", 2: "inner zone"}),
        ("ct_organ", "Dataset007_CtOrgan", ("CT",), {1: "organ"}),  # of two source values
    ],
)
def test_an_export_holds_the_same_cases_for_a_plugin_that_is_made_from_it(
    tmp_path: Path, kind: str, folder: str, channels: tuple[str, ...], labels: dict[int, str]
) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin(kind, tmp_path))
    original = open_dataset(write_phantom(kind, tmp_path, cases=2, seed=1))
    done: list[str] = []
    directory = export_nnunet(plugin, original, tmp_path / "raw", 7, done.append)
    assert directory == tmp_path / "raw" / folder
    assert done == [case.id for case in original.training + original.test]
    exported = open_dataset(directory)
    assert (exported.channels, exported.labels) == (channels, labels)
    remade = DomainPlugin.load(write_plugin("remade", exported, tmp_path))
    pairs = zip(exported.training + exported.test, original.training + original.test, strict=True)
    for again, case in pairs:
        assert (again.id, len(again.images)) == (case.id, len(channels))
        (image, merged), (expected, classes) = load_case(remade, again), load_case(plugin, case)
        np.testing.assert_array_equal(image.array, expected.array)
        assert image.grid.displacement_mm(expected.grid) < 1e-3
        assert (merged is None) == (classes is None)
        if merged and classes:
            np.testing.assert_array_equal(merged.array, classes.array)


def test_the_description_is_as_nnunet_wants_it(tmp_path: Path) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin("ct_organ", tmp_path))
    original = open_dataset(write_phantom("ct_organ", tmp_path, cases=1, seed=1))
    directory = export_nnunet(plugin, original, tmp_path, 27, lambda _: None)
    written = json.loads((directory / "dataset.json").read_text())
    expected = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    assert {key: written[key] for key in expected} == expected
    assert sorted(path.name for path in directory.iterdir()) == [
        "dataset.json", "imagesTr", "imagesTs", "labelsTr"
    ]  # fmt: skip


def test_a_training_case_without_a_label_is_left_out(tmp_path: Path) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path))
    original = open_dataset(write_phantom("ball", tmp_path, cases=2, seed=1))
    labelled, bare = original.training
    partly = replace(original, training=(labelled, replace(bare, label=None)))
    directory = export_nnunet(plugin, partly, tmp_path / "raw", 1, lambda _: None)
    for folder in ("imagesTr", "labelsTr"):
        assert len(list((directory / folder).iterdir())) == 1
    assert json.loads((directory / "dataset.json").read_text())["numTraining"] == 1


def test_a_bad_case_leaves_nothing_and_what_exists_is_not_touched(tmp_path: Path) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path))
    original = open_dataset(write_phantom("ball", tmp_path, cases=2, seed=1))
    original.training[1].images[0].write_bytes(b"no image")
    with pytest.raises(UnreadableImage):
        export_nnunet(plugin, original, tmp_path / "raw", 1, lambda _: None)
    assert list((tmp_path / "raw").iterdir()) == []
    (tmp_path / "raw" / "Dataset001_Other").mkdir()  # nnU-Net takes one of a number
    with pytest.raises(NotWritable, match="exists already"):
        export_nnunet(plugin, original, tmp_path / "raw", 1, lambda _: None)


def test_what_is_ignored_or_unlabelled_is_ignored_by_nnunet(tmp_path: Path) -> None:
    folder = write_phantom_plugin("twin", tmp_path)
    original = open_dataset(write_phantom("twin", tmp_path, cases=2, seed=1))
    hidden = original.training[0].id
    drawn = read_labels(original.training[0].label)
    array = np.where(drawn.array == 2, 0, drawn.array)  # nobody has drawn the inner zone
    write_array(original.training[0].label, array[None], drawn.grid)
    file = folder / "domain.toml"
    rule = f'unlabelled = [{{ labels = ["inner zone"], cases = ["{hidden}"] }}]'
    file.write_text(file.read_text().replace("unlabelled = []", rule))
    directory = export_nnunet(DomainPlugin.load(folder), original, tmp_path, 3, lambda _: None)
    exported = open_dataset(directory)
    assert exported.labels[3] == "ignore"
    remade = DomainPlugin.load(write_plugin("remade", exported, tmp_path))
    assert remade.spec.ignore == (3,)
    assert remade.spec.class_names == ("outer zone", "inner zone")
    for case in exported.training:
        labels = load_case(remade, case)[1]
        assert labels is not None
        values = set(np.unique(labels.array).tolist())
        assert values == ({1, IGNORED} if case.id == hidden else {0, 1, 2})
