import dataclasses
from pathlib import Path

import pytest

from u2net_platform.data.dataset import open_dataset
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.domains.toml import to_toml
from u2net_platform.errors import InvalidSpec, NotWritable
from u2net_platform.testing.contract import check_plugin
from u2net_platform.workflows.new_domain import write_plugin


def test_a_plugin_for_a_data_set_is_ready_to_use(msd_folder: Path, tmp_path: Path) -> None:
    directory = write_plugin("ears", open_dataset(msd_folder), tmp_path)
    check_plugin(directory)
    spec = DomainPlugin.load(directory).spec
    assert spec.class_names == ("left_ear", "right_ear")
    assert spec.description == 'Both ears, "as found"'
    assert spec.intensity.statistics == "dataset"  # CT


def test_a_domain_that_tells_left_from_right_is_not_mirrored(
    msd_folder: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(msd_folder)
    sided = write_plugin("ears", dataset, tmp_path)
    # As radiotherapy names them, TG-263.
    short = dataclasses.replace(dataset, labels={1: "Parotid_L", 2: "Parotid_R", 3: "Cord"})
    short_sided = write_plugin("parotids", short, tmp_path)
    roots = dataclasses.replace(dataset, labels={1: "L5 root left", 2: "L5 root right"})
    spelled_out = write_plugin("roots", roots, tmp_path)
    lt = dataclasses.replace(dataset, labels={1: "Lt lung", 2: "Rt lung"})
    abbreviated = write_plugin("lungs", lt, tmp_path)
    levels = dataclasses.replace(dataset, labels={1: "vertebra L1", 2: "vertebra R1"})
    without = write_plugin("levels", levels, tmp_path)
    one_sided = dataclasses.replace(dataset, labels={1: "left atrium"})
    other = write_plugin("atrium", one_sided, tmp_path)
    for plugin in (sided, short_sided, spelled_out, abbreviated):
        assert DomainPlugin.load(plugin).spec.augmentation.mirror_axes == ()
    for plugin in (other, without):
        assert DomainPlugin.load(plugin).spec.augmentation.mirror_axes == ("x",)


def test_intensities_of_mr_are_taken_image_by_image(msd_folder: Path, tmp_path: Path) -> None:
    dataset = dataclasses.replace(open_dataset(msd_folder), channels=("T1", "FLAIR"), licence="")
    spec = DomainPlugin.load(write_plugin("ears", dataset, tmp_path)).spec
    assert (spec.modality, spec.intensity.statistics) == ("MR", "image")
    check_plugin(tmp_path / "ears")  # a data set that states no licence has a card as well


def test_an_existing_folder_is_left_alone(msd_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ears").mkdir()
    with pytest.raises(NotWritable, match="ears"):
        write_plugin("ears", open_dataset(msd_folder), tmp_path)
    assert not [*(tmp_path / "ears").iterdir()]


def test_a_name_that_no_domain_may_have_writes_nothing(msd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="name"):
        write_plugin("Ears!", open_dataset(msd_folder), tmp_path / "plugins")
    assert not (tmp_path / "plugins").exists()


def test_awkward_text_survives_toml(tmp_path: Path) -> None:
    spec = DomainSpec.parse(
        {
            "name": "ears",
            "description": 'a "quoted"\nline, a \\ and \x7f, Ohr 👂 [x] = # {}',
            "modality": "MR",
            "channels": ["T1"],
            "labels": [{"name": "ear '\"", "values": [1, 7]}],
            "evaluation": {"surface_tolerance_mm": 1e-05},
            "geometry": {"spacing_zyx_mm": [0.5, 1, 3]},
            "data": {"dataset": "d", "licence": "l"},
        },
        "",
    )
    path = tmp_path / "domain.toml"
    path.write_text(to_toml(spec), encoding="utf-8")
    assert DomainSpec.load(path) == spec


def test_every_real_data_set_gets_a_working_plugin(real_data: Path, tmp_path: Path) -> None:
    folders = sorted(path.parent for path in real_data.glob("*/dataset.json"))
    assert folders
    for folder in folders:
        check_plugin(write_plugin(folder.name.lower(), open_dataset(folder), tmp_path))
