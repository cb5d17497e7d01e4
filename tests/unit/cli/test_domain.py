import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner, Result

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.cli.app import app
from u2net_platform.data.dataset import open_dataset
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.settings import Settings
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin

NewPlugin = Callable[..., Path]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["domain", *map(str, arguments)])


def data(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["data"]


@pytest.fixture(autouse=True)
def home(settings: Settings) -> Settings:
    return settings


def test_list_shows_added_available_and_broken_domains(
    home: Settings, new_plugin: NewPlugin
) -> None:
    new_plugin(home.plugins_dir, "kidney", "import no_such_module_here")
    run("add", "heart")
    rows = {row["name"]: row for row in data("list")["domains"]}
    assert rows["heart"]["added"]
    assert not rows["liver"]["added"]
    assert "no_such_module_here" in rows["kidney"]["fault"]
    lines = {line.split()[0]: line for line in run("list").stdout.splitlines() if line.strip()}
    assert "added" in lines["heart"]
    assert "available" in lines["liver"]
    assert "broken" in lines["kidney"]


def test_a_domain_that_came_without_a_plugin_is_not_broken(home: Settings) -> None:
    catalog = Catalog.open(home.database_url)
    for name in ("bundle", "federation"):
        spec = {"name": name, "description": "An organ"}
        catalog.domains.add(spec, f"{name}-one", "a" * 64, name)
    assert {row["fault"] for row in data("list")["domains"]} == {None}
    lines = run("list").stdout
    assert re.search(r"bundle-one +no plugin +bundle +An organ", lines)
    assert re.search(r"federation-one +no plugin +federation +An organ", lines)


def test_show_prints_a_spec_that_reads_back(tmp_path: Path) -> None:
    shown = data("show", "prostate")
    assert shown["spec"]["channels"] == ["T2", "ADC"]
    (tmp_path / "domain.toml").write_text(run("show", "prostate").stdout, encoding="utf-8")
    assert DomainPlugin.load(tmp_path).digest == shown["digest"]


def test_show_breaks_no_line_however_long_it_is(home: Settings, new_plugin: NewPlugin) -> None:
    spec = new_plugin(home.plugins_dir, "kidney") / "domain.toml"
    spec.write_text(spec.read_text("utf-8").replace("made-up", "made-up " * 60), "utf-8")
    assert tomllib.loads(run("show", "kidney").stdout)["name"] == "kidney"


def test_show_tells_what_the_catalog_knows_of_a_domain_without_a_plugin(
    tmp_path: Path, new_plugin: NewPlugin
) -> None:
    folder = new_plugin(tmp_path, "kidney")
    run("add", "kidney", "--path", folder)
    before = data("show", "kidney")
    shutil.rmtree(folder)
    now = data("show", "kidney")
    assert now == before | {"directory": None, "source": str(folder), "hooks": []}
    new_plugin(tmp_path / "others", "liver_two")
    assert run("show", "kidney", "--path", tmp_path / "others").exit_code == 3


def test_an_unknown_domain_ends_with_3_and_a_suggestion() -> None:
    result = run("show", "hart")
    assert result.exit_code == 3
    assert "Did you mean heart?" in result.stderr


def test_a_new_domain_can_be_added_as_it_is(msd_folder: Path) -> None:
    directory = Path(data("new", "ears", "--from-dataset", msd_folder)["directory"])
    assert (directory / "README.md").is_file()
    added = data("add", "ears", "--data", msd_folder)
    assert added["change"] == "added"
    assert added["record"]["data_dir"] == str(msd_folder)
    assert "nothing has changed" in run("add", "ears").stdout


def test_a_new_domain_written_elsewhere_is_added_by_path(msd_folder: Path, tmp_path: Path) -> None:
    data("new", "ears", "--from-dataset", msd_folder, "--path", tmp_path / "mine")
    assert run("add", "ears").exit_code == 3
    data("add", "ears", "--path", tmp_path / "mine")
    # From then on it is known everywhere.
    assert run("new", "ears", "--from-dataset", msd_folder).exit_code == 3
    counted = CliRunner().invoke(app, ["model", "parameters", "ears", "--json"])
    assert json.loads(counted.stdout)["data"]["domains"] == ["ears"]
    assert data("show", "ears")["added"]
    assert run("add", "ears").exit_code == 0  # its folder is known by now


def test_a_name_that_is_taken_is_refused(msd_folder: Path) -> None:
    result = run("new", "heart", "--from-dataset", msd_folder)
    assert result.exit_code == 3
    assert "plugins/heart" in result.stderr


def test_remove_forgets_the_domain_and_keeps_the_plugin() -> None:
    run("add", "heart")
    assert data("remove", "heart") == {"name": "heart"}
    assert not data("show", "heart")["added"]
    assert run("remove", "heart").exit_code == 3


def test_check_without_data_says_how_to_give_them() -> None:
    result = run("check", "heart")
    assert result.exit_code == 4
    assert "--data" in result.stderr


def write_volume(path: Path, array: np.ndarray) -> None:  # z y x
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


def fill(folder: Path) -> None:
    """Give the task folder's case a sound image and label."""
    random = np.random.default_rng(0)
    labels = np.zeros((6, 8, 10), dtype=np.uint8)
    labels[2:4, 2:4, 2:4], labels[2:4, 5:7, 2:4] = 1, 2
    write_volume(folder / "labelsTr/ear_1.nii.gz", labels)
    write_volume(folder / "imagesTr/ear_1.nii.gz", random.normal(0, 400, labels.shape))


def test_check_passes_sound_cases(msd_folder: Path) -> None:
    fill(msd_folder)
    data("new", "ears", "--from-dataset", msd_folder)
    data("add", "ears", "--data", msd_folder)
    assert data("check", "ears") == {
        "name": "ears",
        "directory": str(msd_folder),
        "cases": 1,
        "findings": [],
    }
    assert "all sound" in run("check", "ears").stdout


def test_check_names_each_bad_case_and_ends_with_4(msd_folder: Path) -> None:
    fill(msd_folder)
    data("new", "ears", "--from-dataset", msd_folder)
    image = msd_folder / "imagesTr/ear_1.nii.gz"
    image.write_bytes(image.read_bytes()[:-200])
    result = run("check", "ears", "--data", msd_folder, "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["error_code"] == "InvalidCases"
    (fault,) = document["data"]["findings"]
    assert (fault["case"], fault["error_code"]) == ("ear_1", "UnreadableImage")
    table = run("check", "ears", "--data", msd_folder).stdout
    assert "ear_1" in table
    assert "UnreadableImage" in table


def test_export_writes_an_nnunet_folder_and_says_where(
    new_plugin: NewPlugin, tmp_path: Path
) -> None:
    folder = write_phantom("ct_organ", tmp_path, cases=1, seed=0)
    plugin = write_phantom_plugin("ct_organ", tmp_path)
    arguments = ("export", "ct_organ", "--path", plugin, "--data", folder, "--number", "5")
    written = data(*arguments, "--output", tmp_path / "raw")
    assert written["directory"] == str(tmp_path / "raw" / "Dataset005_CtOrgan")
    assert len(open_dataset(Path(written["directory"])).training) == 1
    assert run(*arguments, "--output", tmp_path / "raw").exit_code == 5


def test_plan_shows_what_the_data_gives_and_what_was_declared(msd_folder: Path) -> None:
    fill(msd_folder)
    folder = msd_folder / "imagesTr"
    for part in ("imagesTr", "labelsTr"):
        for number in (2, 3):
            source = msd_folder / part / "ear_1.nii.gz"
            (msd_folder / part / f"ear_{number}.nii.gz").write_bytes(source.read_bytes())
    description = json.loads((msd_folder / "dataset.json").read_text())
    description["training"] = [
        {"image": f"./{folder.name}/ear_{n}.nii.gz", "label": f"./labelsTr/ear_{n}.nii.gz"}
        for n in (1, 2, 3)
    ]
    (msd_folder / "dataset.json").write_text(json.dumps(description))
    plugin = Path(data("new", "ears", "--from-dataset", msd_folder)["directory"])
    found = data("plan", "ears", "--data", msd_folder)
    assert found["plan"]["shape_zyx"] == [6, 8, 10]
    assert [one["cases"] for one in found["fingerprint"]["classes"]] == [2, 2, 2]
    assert found["declared"] == []
    text = (plugin / "domain.toml").read_text()
    (plugin / "domain.toml").write_text(text.replace("[plan]", "[plan]\npatch_zyx = [4, 8, 8]"))
    changed = data("plan", "ears", "--data", msd_folder)
    assert changed["plan"]["patch_zyx"] == [4, 8, 8]
    assert changed["declared"] == ["patch_zyx"]
    assert changed["digest"] != found["digest"]
    larger = data("plan", "ears", "--data", msd_folder, "--memory", "1")
    assert larger["batch_voxels"] == 2**30 // (3300 + 20 * 3)  # three classes
    assert run("plan", "ears", "--memory", "1", "--batch-voxels", "9000").exit_code == 2
