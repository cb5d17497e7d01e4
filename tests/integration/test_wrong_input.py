"""Whatever a user gets wrong is named, with a remedy, and leaves nothing half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner, Result

from u2net_platform import errors
from u2net_platform.cli.app import app

FAST = ("--cycles", "2", "--workers", "0", "--batch-voxels", "8192", "--device", "cpu")


def u2net(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(arguments: Sequence[object], code: str, exit_code: int, *names: object) -> Any:
    """Run twice, as text and as JSON; both must tell the same, and name these things."""
    assert getattr(errors, code).exit_code == exit_code
    text = u2net(*arguments)
    assert text.exit_code == exit_code, text.output
    assert "Traceback" not in text.output
    first, *rest = text.stderr[text.stderr.index(f"{code}: ") :].splitlines()
    assert len(first) > len(code) + 2 and rest[-1], "a reason and a remedy"

    document = u2net(*arguments, "--json")
    envelope = json.loads(document.stdout)
    assert document.exit_code == exit_code
    assert envelope["schema_version"] == 1
    assert (envelope["status"], envelope["error_code"]) == ("error", code)
    assert len(envelope["hint"]) > 10
    for name in names:
        assert str(name) in text.output
        assert str(name) in document.stdout.replace("\\\\", "\\")
    return envelope


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def no_leftovers(folder: Path) -> None:
    assert not list(folder.rglob(".tmp-*"))


# Ways to spoil a case -----------------------------------------------------------------------------

Spoil = Callable[[Path, Path], object]


def changed(
    path: Path, change: Callable[[np.ndarray], np.ndarray], isotropic: bool = False
) -> None:
    old = SimpleITK.ReadImage(str(path))
    new = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(old)))
    if not isotropic:
        new.CopyInformation(old)
    SimpleITK.WriteImage(new, str(path))


def truncate(image: Path, label: Path) -> None:
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def move_label(image: Path, label: Path) -> None:
    moved = SimpleITK.ReadImage(str(label))
    moved.SetOrigin([place + 3 for place in moved.GetOrigin()])
    SimpleITK.WriteImage(moved, str(label))


def crop_label(image: Path, label: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(label))[1:], str(label))


def unnamed_value(image: Path, label: Path) -> None:
    changed(label, lambda array: np.where(array == 1, 7, array).astype(np.uint8))


def no_label(image: Path, label: Path) -> None:
    changed(label, np.zeros_like)


def one_nan(image: Path, label: Path) -> None:
    def put(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[3, 4, 5] = np.nan
        return array

    changed(image, put)


def two_channels(image: Path, label: Path) -> None:
    volume = SimpleITK.ReadImage(str(image))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([volume, volume]), str(image))


# What, error code, which of (image, label) is named, further words of the message
FAULTS: dict[str, tuple[Spoil, str, int, str]] = {
    "truncated gzip": (truncate, "UnreadableImage", 0, "truncated"),
    "label elsewhere": (move_label, "GeometryMismatch", 1, "corners lie up to"),
    "label of another shape": (crop_label, "GeometryMismatch", 1, "shapes"),
    "unnamed value": (unnamed_value, "UnexpectedLabel", 1, "the values 7"),
    "empty label": (no_label, "EmptyLabel", 1, "no foreground"),
    "NaN": (one_nan, "NonFiniteImage", 0, "NaN"),
    "two channels": (two_channels, "WrongChannels", 0, "has 2 channels"),
}
OF_AN_IMAGE = [name for name, fault in FAULTS.items() if fault[2] == 0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_case_is_found_by_check_and_stops_prepare_and_train(site, fault: str) -> None:
    spoil, code, which, words = FAULTS[fault]
    number = site.part("training")[0]
    spoil(*site.case(number))
    before = site.kept()

    envelope = refused(["domain", "check", "box"], "InvalidCases", 4, f"box_{number}", code)
    assert envelope["message"] == "1 errors in 6 cases of box"
    (finding,) = [one for one in envelope["data"]["findings"] if one["severity"] == "error"]
    assert (finding["case"], finding["error_code"]) == (f"box_{number}", code)
    assert str(site.case(number)[which]) in finding["message"]
    assert words in finding["message"]
    assert finding["hint"]

    name = site.case(number)[which]
    refused(["prepare", "box"], "InvalidCases", 4, name, words, code)
    refused(["train", "box", *FAST], "InvalidCases", 4, name, words, code)
    assert site.kept() == before


@pytest.mark.parametrize("fault", OF_AN_IMAGE)
def test_a_faulty_image_is_not_predicted(site, tmp_path: Path, fault: str) -> None:
    spoil, code, _, words = FAULTS[fault]
    image, label = site.case(0)
    spoil(image, label)
    target = tmp_path / "out" / "mask.nii.gz"
    refused(["predict", "--domain", "box", "-i", image, "-o", target], code, 4, image, words)
    assert list(target.parent.iterdir()) == []


def test_a_faulty_image_of_a_folder_leaves_the_others_predicted(site, tmp_path: Path) -> None:
    for number, fault in zip((1, 2, 3), OF_AN_IMAGE, strict=True):
        FAULTS[fault][0](*site.case(number))
    inputs, output = site.data / "imagesTr", tmp_path / "out"
    arguments = ["predict", "--domain", "box", "-i", inputs, "-o", output, "--overwrite"]
    codes = [FAULTS[fault][1] for fault in OF_AN_IMAGE]
    refused(arguments, "InvalidCases", 4, "3 of 6 cases failed", "box_1", *codes)
    whole = [f"box_{k}{end}" for k in (0, 4, 5) for end in (".labels.json", ".nii.gz")]
    assert sorted(path.name for path in output.iterdir()) == whole


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "empty label"])
def test_a_faulty_test_case_is_scored_as_a_failure_and_named(site, fault: str) -> None:
    spoil, code, _, _ = FAULTS[fault]
    number = site.part("test")[0]
    spoil(*site.case(number))
    envelope = refused(["evaluate", "box"], "InvalidCases", 4, f"box_{number}", code)
    assert envelope["data"]["mean"]["failures"] == 1


def test_a_missing_file_is_named_by_every_command_that_needs_it(site, tmp_path: Path) -> None:
    image, _ = site.case(site.part("training")[0])
    image.unlink()
    before = site.kept()
    for command in (
        ["domain", "add", "box", "--data", site.data],
        ["domain", "new", "crate", "--from-dataset", site.data],
        ["prepare", "box"],
        ["train", "box", *FAST],
        ["evaluate", "box"],
    ):
        refused(command, "InvalidDataset", 4, image)
    refused(["domain", "check", "box"], "InvalidCases", 4, image, "MissingFile")
    predict = ["predict", "--domain", "box", "-i", image, "-o", tmp_path / "mask.nii.gz"]
    refused(predict, "MissingFile", 4, image)
    assert not (tmp_path / "mask.nii.gz").exists()
    assert site.kept() == before


def test_a_folder_that_is_not_there_or_holds_no_data_set_is_named(site, tmp_path: Path) -> None:
    gone, empty = tmp_path / "gone", tmp_path / "empty"
    empty.mkdir()
    for command in (["domain", "add"], ["domain", "check"], ["prepare"], ["evaluate"]):
        refused([*command, "box", "--data", gone], "MissingFile", 4, gone)
        refused([*command, "box", "--data", empty], "InvalidDataset", 4, empty)
    predict = ["predict", "--domain", "box", "-o", tmp_path / "out", "-i"]
    refused([*predict, empty], "NoDicom", 4, empty)
    assert not (tmp_path / "out").exists()


# Domains ------------------------------------------------------------------------------------------


def test_an_unknown_domain_is_answered_with_near_names(site, tmp_path: Path) -> None:
    for command in (
        ["domain", "add", "boxx"],
        ["domain", "show", "boxx"],
        ["domain", "check", "boxx"],
        ["domain", "remove", "boxx"],
        ["model", "list", "boxx"],
        ["prepare", "boxx"],
        ["train", "boxx", *FAST],
        ["train", "box", "boxx", *FAST],
        ["adapt", "boxx", "--from", "box", *FAST],
        ["predict", "--domain", "boxx", "-i", site.case(0)[0], "-o", tmp_path / "mask.nii.gz"],
        ["evaluate", "boxx"],
    ):
        envelope = refused(command, "UnknownDomain", 3, "boxx")
        assert "Did you mean box?" in envelope["hint"], command


def test_a_spec_with_three_faults_lists_all_three(site, tmp_path: Path) -> None:
    folder = tmp_path / "crate"
    folder.mkdir()
    (folder / "domain.toml").write_text(
        'name = "crate"\ndescription = "x"\nmodality = "XRAY"\nchannels = []\nlabel = 3\n'
        'labels = [{ name = "crate", values = [1] }]\n'
        'data = { dataset = "none", licence = "CC0" }\n'
    )
    before = site.kept()
    for verb in ("add", "show", "check"):
        faults = (folder / "domain.toml", "3 faults", "modality: ", "channels: ", "label: ")
        refused(["domain", verb, "crate", "--path", folder], "InvalidSpec", 3, *faults)
    assert site.kept() == before
    assert u2net("domain", "list").exit_code == 0, "a broken plugin keeps no command from working"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [("domain.toml", "name = ", "cannot be read"), ("plugin.py", "1 / 0", "ZeroDivisionError")],
)
def test_a_plugin_with_broken_syntax_or_code_is_named(
    site, tmp_path: Path, file: str, content: str, words: str
) -> None:
    folder = tmp_path / "crate"
    folder.mkdir()
    spec = (site.home / "plugins" / "box" / "domain.toml").read_text()
    (folder / "domain.toml").write_text(spec.replace("box", "crate"))
    (folder / file).write_text(content)
    command = ["domain", "add", "crate", "--path", folder]
    refused(command, "BrokenPlugin", 3, folder / file, words)


# Bad arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        ["box", "--fold", "7"],
        ["box", "--fold", "01"],
        ["box", "--fold", ""],
        ["box", "--minutes", "-1"],
        ["box", "--minutes", "nan"],
        ["box", "--minutes", "inf"],
        ["box", "--cycles", "0"],
        ["box", "--workers", "-1"],
        ["box", "--seed", "-1"],
        ["box", "--seed", "3000000000"],
        ["box", "--mode", "nosuch"],
        ["box", "box"],
        ["box", "--resume", "some-run"],
        [],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_does_nothing(site, flags: list[str]) -> None:
    before = site.kept()
    workers = [] if "--workers" in flags else ["--workers", "0"]
    result = u2net("train", *flags, *workers, "--json")
    assert result.exit_code == 2, result.output
    assert "Usage: " in result.stderr and result.stdout == ""
    for flag in flags[-2:]:
        assert flag in result.stderr or "named twice" in result.stderr or "--resume" in flags
    assert site.kept() == before


def test_a_bad_recipe_lists_its_faults(site, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nloss = "hinge"\ncycles = 0\n')
    for command in (["train", "box"], ["adapt", "box", "--from", "box"], ["prepare", "box"]):
        refused([*command, "--recipe", "nosuch"], "InvalidRecipe", 7, "nosuch", "default, paper")
        refused([*command, "--recipe", tmp_path], "InvalidRecipe", 7, tmp_path)
        refused([*command, "--recipe", recipe], "InvalidRecipe", 7, recipe, "loss: ", "cycles: ")
        refused([*command, "--batch-voxels", "1"], "InvalidRecipe", 7, "batch_voxels: ")
    refused(["train", "box", "--set", "learning_rate=-1"], "InvalidRecipe", 7, "learning_rate: ")


def test_a_run_that_diverges_says_so_and_leaves_no_process_behind(site) -> None:
    flags = (*FAST, "--set", "learning_rate=1e30", "--workers", "1", "--cycles", "9")
    before = set(multiprocessing.active_children())  # joblib keeps its own for the next call
    result = u2net("train", "box", *flags)
    assert result.exit_code == 7, result.output
    assert "Diverged: The loss of box is nan" in result.stderr
    assert result.exc_info is not None  # and with it all that the run held
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_named_before_anything_is_done(
    site, tmp_path: Path, device: str
) -> None:
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    before = site.kept()
    target = tmp_path / "mask.nii.gz"
    for command in (
        ["train", "box", *FAST[:-2]],
        ["adapt", "box", "--from", "box", *FAST[:-2]],
        ["evaluate", "box"],
        ["predict", "--domain", "box", "-i", site.case(0)[0], "-o", target],
    ):
        refused([*command, "--device", device], "DeviceUnavailable", 9, f"'{device}'")
    assert site.kept() == before
    assert not target.exists()


def test_a_domain_whose_data_nobody_knows_is_told_how_to_name_it(site) -> None:
    assert u2net("domain", "add", "heart").exit_code == 0
    for command in (["domain", "check"], ["prepare"], ["train"]):
        flags = FAST if command == ["train"] else ()
        envelope = refused([*command, "heart", *flags], "MissingFile", 4, "data of heart")
        assert "u2net domain add heart --data" in envelope["hint"]


def test_versions_and_runs_that_are_not_there_are_named(site, tmp_path: Path) -> None:
    predict = ["predict", "-i", site.case(0)[0], "-o", tmp_path / "mask.nii.gz", "--domain"]
    for command in (["model", "show"], ["evaluate"], predict, ["adapt", "box", *FAST, "--from"]):
        refused([*command, "box:99"], "UnknownRecord", 6, "box", "99")
        refused([*command, "box:0"], "UnknownRecord", 6, "box:0")
        refused([*command, "../box"], "UnknownRecord", 6, "../box")
    refused(["train", "--resume", "nosuch"], "UnknownRecord", 6, "nosuch")
    (run,) = (site.home / "runs").iterdir()
    refused(["train", "--resume", run.name], "NothingToResume", 7, run.name)


def test_names_that_no_domain_may_have_and_names_that_are_taken_are_refused(site) -> None:
    new = ["domain", "new", "--from-dataset", site.data]
    refused([*new, "Two Words"], "InvalidSpec", 3, "Two Words")
    refused([*new, "../box"], "InvalidSpec", 3, "../box")
    refused([*new, "box"], "DuplicateDomain", 3, "box", site.home / "plugins" / "box")
    refused([*new, "heart"], "DuplicateDomain", 3, "heart")
    assert [path.name for path in (site.home / "plugins").iterdir()] == ["box"]
    refused(["domain", "remove", "box"], "Conflict", 6, "1 versions")


def test_prediction_over_its_own_input_or_over_other_files_is_refused(site, tmp_path: Path) -> None:
    image, _ = site.case(0)
    before = site.kept()
    predict = ["predict", "--domain", "box", "-i"]
    folder = image.parent
    refused([*predict, folder, "-o", folder], "NotWritable", 5, folder)
    refused([*predict, folder, "-o", folder, "--overwrite"], "NotWritable", 5, folder)
    refused([*predict, image, "-o", image, "--overwrite"], "NotWritable", 5, image)
    refused([*predict, image, "-o", site.case(1)[0]], "NotWritable", 5, "exists", site.case(1)[0])
    refused([*predict, image, "-o", tmp_path / "a.png"], "UnsupportedFormat", 4, tmp_path / "a.png")
    text = tmp_path / "scan.txt"
    text.touch()
    refused([*predict, text, "-o", tmp_path / "mask.nii.gz"], "UnsupportedFormat", 4, text)
    refused(["evaluate", "box", "-o", tmp_path / "a.xls"], "UnsupportedFormat", 4, "a.xls")
    refused(["evaluate", "box", "--pictures", tmp_path / "a.jpg"], "UnsupportedFormat", 4, "a.jpg")
    assert site.kept() == before


# Damage -------------------------------------------------------------------------------------------


def test_weights_that_were_altered_are_not_used(site, tmp_path: Path) -> None:
    image, _ = site.case(0)
    predict = ["predict", "--domain", "box", "-i", image, "-o", tmp_path / "mask.nii.gz"]
    version = json.loads(u2net("model", "show", "box", "--json").stdout)["data"]["version"]
    for digest in (version["backbone_digest"], version["domain_digest"]):
        path = site.home / "weights" / f"{digest}.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refused(predict, "DigestMismatch", 8, path)
        refused(["evaluate", "box"], "DigestMismatch", 8, path)
        path.unlink()
        refused(predict, "MissingFile", 4, path)
        path.write_bytes(content)
    assert not (tmp_path / "mask.nii.gz").exists()
    assert u2net(*predict).exit_code == 0


def test_a_catalog_that_is_no_database_is_named_and_left_alone(site) -> None:
    file = site.home / "catalog.db"
    for path in site.home.glob("catalog.db*"):
        path.unlink()
    file.write_bytes(b"no database " * 1000)
    for command in (
        ["domain", "list"],
        ["model", "list"],
        ["catalog", "status"],
        ["catalog", "upgrade"],
        ["train", "box", *FAST],
    ):
        refused(command, "CatalogUnreachable", 6, file)
    assert file.read_bytes() == b"no database " * 1000
    doctor = u2net("doctor", "--json")
    assert doctor.exit_code == 1
    assert "catalog" in json.loads(doctor.stdout)["message"]


# No place to write --------------------------------------------------------------------------------


def test_an_output_below_a_file_is_refused_before_the_first_case(site, tmp_path: Path) -> None:
    image, _ = site.case(0)
    file = tmp_path / "file"
    file.write_text("precious")
    predict = ["predict", "--domain", "box", "-i"]
    refused([*predict, image, "-o", file / "mask.nii.gz"], "NotWritable", 5, file)
    refused([*predict, image.parent, "-o", file], "NotWritable", 5, file)
    refused(["evaluate", "box", "-o", file / "scores.csv"], "NotWritable", 5, file)
    new = ["domain", "new", "crate", "--from-dataset", site.data, "--path", file / "plugins"]
    refused(new, "NotWritable", 5, file)
    assert file.read_text() == "precious"


def test_a_home_below_a_file_is_refused(site, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    monkeypatch.setenv("U2NET_HOME", str(file / "home"))
    for command in (["domain", "list"], ["domain", "add", "heart"], ["train", "box", *FAST]):
        refused(command, "NotWritable", 5, file)
    assert file.read_text() == "precious"


def test_a_file_system_that_is_read_only_is_named(site, tmp_path: Path, mount) -> None:
    folder = tmp_path / "locked"
    mount(folder, "size=64k,ro")
    image, _ = site.case(0)
    predict = ["predict", "--domain", "box", "-i"]
    refused([*predict, image, "-o", folder / "mask.nii.gz"], "NotWritable", 5, folder)
    refused([*predict, image.parent, "-o", folder / "out"], "NotWritable", 5, folder)
    refused(["evaluate", "box", "-o", folder / "scores.csv"], "NotWritable", 5, folder)
    mount(site.home / "prepared", "size=64k,ro")
    refused(["prepare", "box"], "NotWritable", 5, site.home / "prepared")
    refused(["train", "box", *FAST], "NotWritable", 5, site.home / "prepared")


# No room ------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_prediction_whole(site, tmp_path: Path, mount) -> None:
    disk = mount(tmp_path / "disk", "size=16k")
    image, _ = site.case(0)
    target = disk.folder / "mask.nii.gz"
    target.write_bytes(b"the old one")
    predict = ["predict", "--domain", "box", "-i", image, "-o", target, "--overwrite"]
    disk.fill()
    refused(predict, "DiskFull", 5, target)
    assert sorted(path.name for path in disk.folder.iterdir()) == ["filler", target.name]
    assert target.read_bytes() == b"the old one"
    disk.free()
    assert u2net(*predict).exit_code == 0


def test_a_full_disk_leaves_no_half_prepared_case(site, mount) -> None:
    disk = mount(site.home / "prepared", "size=256k")
    disk.fill()
    refused(["prepare", "box"], "DiskFull", 5, disk.folder)
    assert [path for path in disk.folder.rglob("*") if path.is_file()] == [disk.folder / "filler"]
    disk.free()
    (disk.folder / "filler").write_bytes(bytes(160 << 10))  # room for some cases, not for all
    refused(["prepare", "box"], "DiskFull", 5, disk.folder)
    no_leftovers(disk.folder)
    whole = list((disk.folder / "box").glob("*/meta.json"))
    assert whole and len(whole) == len([p for p in (disk.folder / "box").iterdir() if p.is_dir()])
    disk.free()
    assert u2net("prepare", "box").exit_code == 0


def test_a_full_disk_leaves_the_catalog_as_it_was(site, mount, monkeypatch) -> None:
    disk = mount(site.home / "small", "size=1m")
    monkeypatch.setenv("U2NET_CATALOG_URL", f"sqlite:///{disk.folder / 'catalog.db'}")
    assert u2net("domain", "add", "heart").exit_code == 0
    disk.fill()
    refused(["domain", "add", "spleen"], "DiskFull", 5, disk.folder / "catalog.db")
    disk.free()
    rows = json.loads(u2net("domain", "list", "--json").stdout)["data"]["domains"]
    assert [row["name"] for row in rows if row["added"]] == ["heart"]


def test_a_run_whose_disk_fills_up_goes_on_from_its_checkpoint_once_there_is_room(
    site, mount
) -> None:
    (before,) = json.loads(u2net("model", "list", "--json").stdout)["data"]
    runs, weights = mount(site.home / "runs", "size=64m"), mount(site.home / "weights", "size=64k")
    failed = u2net("train", "box", *FAST, "--seed", "1", "--json")
    assert failed.exit_code == 5, failed.output
    assert json.loads(failed.stdout)["error_code"] == "DiskFull"
    assert list(weights.folder.iterdir()) == [], "weights are there whole or not at all"
    assert json.loads(u2net("model", "list", "--json").stdout)["data"] == [before]

    (checkpoint,) = runs.folder.glob("*/checkpoint.safetensors")
    run, whole = checkpoint.parent.name, checkpoint.read_bytes()
    runs.fill()
    refused(["train", "--resume", run], "DiskFull", 5, checkpoint.parent)
    assert checkpoint.read_bytes() == whole
    no_leftovers(runs.folder)

    runs.free()
    subprocess.run(
        ["mount", "-o", "remount,size=64m", str(weights.folder)], check=True, capture_output=True
    )
    resumed = u2net("train", "--resume", run, "--json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["data"]["versions"][0]["number"] == 2


@pytest.mark.parametrize("kind", ["checkpoint", "weights", "prepared case", "prediction", "text"])
def test_a_write_that_the_system_refuses_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch, kind: str
) -> None:
    """As on a full disk, where none can be mounted: the system says so when the file is synced."""
    import torch

    from u2net_platform.catalog.weights import WeightStore
    from u2net_platform.files import atomic_directory, write_text
    from u2net_platform.imaging.grid import Grid
    from u2net_platform.imaging.volume import LabelVolume, write_labels
    from u2net_platform.training.checkpoint import save_checkpoint

    grid = Grid((2, 2, 2), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))

    def prepared(number: int) -> None:
        with atomic_directory(tmp_path / str(number)) as folder:
            np.save(folder / "image.npy", np.full(3, number))

    writers: dict[str, Callable[[int], object]] = {
        "checkpoint": lambda k: save_checkpoint(tmp_path / "c", {"w": torch.full((3,), k)}, {}),
        "weights": lambda k: WeightStore(tmp_path).put({"w": torch.full((3,), k)}),
        "prepared case": prepared,
        "prediction": lambda k: write_labels(
            tmp_path / "mask.nii.gz", LabelVolume(np.full((2, 2, 2), k, np.uint8), grid), ("organ",)
        ),
        "text": lambda k: write_text(tmp_path / "t", str(k)),
    }
    write = writers[kind]
    write(1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(errors.DiskFull, match="No room is left"):
            write(2)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    write(2)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} != before


def test_a_prediction_beyond_the_limit_on_file_sizes_leaves_nothing(site, tmp_path: Path) -> None:
    """A quota of the process; the label file of noise is larger than the limit allows."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "import numpy as np; from pathlib import Path;"
        "from u2net_platform.imaging.grid import Grid;"
        "from u2net_platform.imaging.volume import LabelVolume, write_labels;"
        "grid = Grid((40, 40, 40), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1));"
        "noise = np.random.default_rng(0).integers(0, 200, (40, 40, 40), np.uint8);"
        "write_labels(Path(sys.argv[1]), LabelVolume(noise, grid), ('organ',))"
    )
    target = tmp_path / "out" / "mask.nii.gz"
    ended = python(code, target)
    assert f"NotWritable: {target} cannot be written" in ended.stderr
    assert list(target.parent.iterdir()) == []


# Two at once --------------------------------------------------------------------------------------


def test_a_run_that_another_process_works_on_is_busy_and_stops_when_told(site) -> None:
    flags = ("--cycles", "100000", "--workers", "0", "--batch-voxels", "8192", "--device", "cpu")
    command = [sys.executable, "-m", "u2net_platform", "train", "box", *flags, "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    known = set((site.home / "runs").iterdir())
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stderr is not None
            while "cycle 1 of" not in (line := other.stderr.readline()):
                assert line, "the run has ended"
            (run,) = set((site.home / "runs").iterdir()) - known
            refused(["train", "--resume", run.name], "RunBusy", 7, run)
            assert other.poll() is None
        finally:
            other.send_signal(signal.SIGTERM)
        stdout, stderr = other.communicate(timeout=120)
    assert other.returncode == 130, stderr
    document = json.loads(stdout)
    assert document["error_code"] == "Interrupted"
    assert document["hint"] == f"Go on with: u2net train --resume {run.name}"
    assert "Traceback" not in stderr
    assert (run / "checkpoint.safetensors").is_file()
    no_leftovers(site.home)


def test_a_hangup_that_nohup_has_ignored_ends_nothing() -> None:
    code = (
        "import os, signal; from u2net_platform.workflows import doctor;"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "doctor.examine = lambda _: os.kill(os.getpid(), signal.SIGHUP) or [];"
        "from u2net_platform.cli import main; main()"
    )
    assert python(code, "doctor").returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_end_any_command_as_ctrl_c_does(name: str) -> None:
    code = (
        "import os, signal; from u2net_platform.workflows import doctor;"
        f"signal.signal(signal.{name}, signal.SIG_DFL);"  # nohup has one ignored
        f"doctor.examine = lambda _: os.kill(os.getpid(), signal.{name});"
        "from u2net_platform.cli import main; main()"
    )
    ended = python(code, "doctor")
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr.strip() == "Interrupted."
