import csv
import json
import shutil
import zipfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import SimpleITK
from matplotlib.pyplot import imread
from typer.testing import CliRunner, Result

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.cli.app import app
from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.store import PreparedStore
from u2net_platform.imaging.volume import write_array
from u2net_platform.inference.device import choose_device
from u2net_platform.workflows import evaluate as evaluate_module
from u2net_platform.workflows import register
from u2net_platform.workflows.labeller import Labeller
from u2net_platform.workflows.versions import load_predictor


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def added(settings, publish_bright, bright_data) -> Catalog:
    publish_bright(bright_data)
    return Catalog.open(settings.database_url)


def test_predict_writes_a_label_file_and_says_where(added, bright_data, tmp_path) -> None:
    image, target = bright_data / "imagesTr" / "case_0.nii.gz", tmp_path / "mask.nii.gz"
    result = run("predict", "--domain", "bright", "-i", image, "-o", target, "--json")
    assert result.exit_code == 0, result.output
    assert target.is_file()
    document = json.loads(result.stdout)["data"]
    assert document["versions"] == ["bright:1"]
    (case,) = document["cases"]
    beside = json.loads((tmp_path / "mask.labels.json").read_text())
    assert case == {
        "case_id": "case_0",
        "domain": "bright",
        "output": str(target),
        "error": None,
        "volumes_ml": beside["volumes_ml"],
        "warnings": beside["warnings"],
        "preview": None,
    }
    record = added.find("bright:1")
    assert beside["labels"] == {"0": "background", "1": "organ"}
    assert beside["version"] == "bright:1"
    assert beside["digests"] == {"backbone": record.backbone_digest, "domain": record.domain_digest}


def test_a_preview_shows_the_labels_on_the_image(added, bright_data, tmp_path) -> None:
    image, target = bright_data / "imagesTr" / "case_0.nii.gz", tmp_path / "mask.nii.gz"
    result = run("predict", "--domain", "bright", "-i", image, "-o", target, "--preview", "--json")
    assert result.exit_code == 0, result.output
    (case,) = json.loads(result.stdout)["data"]["cases"]
    picture = imread(case["preview"])[..., :3]
    assert Path(case["preview"]) == tmp_path / "mask.png"
    assert (picture.max(-1) - picture.min(-1) > 0.2).any()  # contours alone have a colour
    target.unlink()
    (tmp_path / "mask.labels.json").unlink()
    again = run("predict", "--domain", "bright", "-i", image, "-o", target, "--preview")
    assert (again.exit_code, "mask.png exists already" in again.stderr) == (5, True)


def test_the_json_file_of_other_labels_is_not_replaced(added, bright_data, tmp_path) -> None:
    image = bright_data / "imagesTr" / "case_0.nii.gz"
    predict = ("predict", "--domain", "bright", "-i", image, "-o")
    assert run(*predict, tmp_path / "mask.nii.gz").exit_code == 0
    result = run(*predict, tmp_path / "mask.nrrd")
    assert (result.exit_code, "mask.labels.json exists already" in result.stderr) == (5, True)
    assert run(*predict, tmp_path / "mask.nrrd", "--overwrite").exit_code == 0


def test_labels_that_cannot_be_drawn_are_there_with_a_warning(
    added, bright_data, tmp_path, monkeypatch
) -> None:
    def fail(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(Labeller, "draw", fail)
    image, target = bright_data / "imagesTr" / "case_0.nii.gz", tmp_path / "mask.nii.gz"
    result = run("predict", "--domain", "bright", "-i", image, "-o", target, "--preview", "--json")
    assert (result.exit_code, target.is_file()) == (0, True)
    (case,) = json.loads(result.stdout)["data"]["cases"]
    assert case["preview"] is None
    assert any("has no preview: ValueError: no ink" in text for text in case["warnings"])


def test_a_folder_that_was_stopped_half_way_is_gone_on_with(added, bright_data, tmp_path) -> None:
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.nii.gz").write_bytes(
            (bright_data / "imagesTr/case_0.nii.gz").read_bytes()
        )
    arguments = ("predict", "--domain", "bright", "-i", folder, "-o", out, "--json")
    assert run(*arguments).exit_code == 0
    (out / "b.nii.gz").unlink()
    before = (out / "a.nii.gz").stat().st_mtime_ns
    refused = run(*arguments)
    assert refused.exit_code == 5 and "--skip-existing" in json.loads(refused.stdout)["hint"]
    result = run(*arguments, "--skip-existing")
    assert [one["case_id"] for one in json.loads(result.stdout)["data"]["cases"]] == ["b"]
    assert "were left: 2" in result.stderr
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    done = run(*arguments, "--skip-existing")
    assert (done.exit_code, "Labelled by" in done.stderr) == (0, False)
    assert run(*arguments, "--skip-existing", "--overwrite").exit_code == 2
    # What nobody or somebody else has drawn is neither done nor to be replaced.
    mine = json.loads((out / "c.labels.json").read_text())
    other = json.dumps(mine | {"digests": {"backbone": "of another home"}})
    for legend in ('{"version": "bright:7"}', "{}", "[]", other):
        (out / "c.labels.json").write_text(legend)
        refused = run(*arguments, "--skip-existing")
        assert (refused.exit_code, "c.nii.gz is by" in refused.stdout) == (5, True)
    (out / "c.labels.json").unlink()
    assert run(*arguments, "--skip-existing").exit_code == 5


def test_files_of_a_folder_have_the_ending_that_is_asked_for(added, bright_data, tmp_path) -> None:
    images, target = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    for case in range(2):
        shutil.copy(bright_data / "imagesTr" / f"case_{case}.nii.gz", images)
    (images / "notes.txt").touch()
    command = ("predict", "--domain", "bright", "-i", images, "-o", target, "--ending")
    result = run(*command, ".nrrd", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["data"]["left_out"] == [str(images / "notes.txt")]
    written = {path.name for path in target.iterdir() if path.suffix != ".json"}
    assert written == {"case_0.nrrd", "case_1.nrrd"}
    one = (
        "predict",
        "--domain",
        "bright",
        "-i",
        images / "case_0.nii.gz",
        "-o",
        tmp_path / "a.mha",
    )
    assert "leave out --ending" in run(*one, "--ending", ".nrrd").stderr
    refused = run(*command, ".dcm")
    assert refused.exit_code == 4
    assert "NeedsDicom" in refused.output


def test_what_looks_like_no_image_of_the_domain_is_warned_of(added, scan, tmp_path) -> None:
    image, target = tmp_path / "ct.nii.gz", tmp_path / "mask.nii.gz"
    coarse = replace(scan.grid, spacing_zyx_mm=(9.0, 1.2, 1.6))
    write_array(image, scan.array - 1500, coarse)
    result = run("predict", "--domain", "bright", "-i", image, "-o", target)
    assert result.exit_code == 0, result.output
    assert "it looks like a CT" in result.stderr
    assert "bright's plan has voxels of 2 x 1.5 x 1.5 mm" in result.stderr
    assert "Labelled by bright:1" in result.stderr
    warnings = json.loads((tmp_path / "mask.labels.json").read_text())["warnings"]
    assert "windows" in result.stderr  # as an image of such voxels is that large
    assert len(warnings) == result.stderr.count("Warning: ") == 3


def test_predict_ends_with_a_faults_exit_code_and_the_good_cases_written(
    added, bright_data, tmp_path
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "good.nii.gz").write_bytes((bright_data / "imagesTr/case_0.nii.gz").read_bytes())
    (folder / "bad.nii.gz").write_bytes(b"no image")
    result = run("predict", "--domain", "bright:1", "-i", folder, "-o", tmp_path / "out")
    assert result.exit_code == 4
    assert str(tmp_path / "out" / "good.nii.gz") in result.stdout
    assert "bad: UnreadableImage" in result.stderr
    failed = run("predict", "--domain", "bright", "-i", folder / "bad.nii.gz", "-o", tmp_path / "b")
    assert (failed.exit_code, "Labelled by" in failed.stderr) == (4, False)


def test_a_fault_of_the_program_ends_with_1_and_shows_its_traceback_on_request(
    added, bright_data, tmp_path, monkeypatch
) -> None:
    def fail(*_):
        raise TypeError("no such thing")

    monkeypatch.setattr("u2net_platform.inference.predictor.Predictor.predict_made", fail)
    image = bright_data / "imagesTr" / "case_0.nii.gz"
    predict = ("predict", "--domain", "bright", "-i", image, "-o", tmp_path / "a.nii.gz", "--json")
    for command in (predict, ("evaluate", "bright", "--limit", "1", "--json")):
        result = run(*command)
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        assert (document["error_code"], "TypeError: no" in document["message"]) == (
            "U2NetError",
            True,
        )
        assert "Traceback" not in result.output
        with monkeypatch.context() as debugged:
            debugged.setenv("U2NET_DEBUG", "1")
            assert ", in fail\n" in json.loads(run(*command).stdout)["message"]


def test_predict_reads_a_dicom_folder_and_writes_a_seg_that_names_the_version(
    added, write_series, scan, tmp_path
) -> None:
    folder = write_series(tmp_path / "dicom", scan.array[0].round(), scan.grid)
    target = tmp_path / "labels.dcm"
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    result = run("predict", "--domain", "bright", "-i", folder, "-o", target, "--series", uid)
    assert result.exit_code == 0, result.output
    seg = pydicom.dcmread(target)
    assert seg.SeriesDescription == "u2net-platform bright:1"
    assert "Doe" not in result.output
    again = run("predict", "--domain", "bright", "-i", folder, "-o", target, "--skip-existing")
    assert (again.exit_code, "were left: 1" in again.stderr) == (0, True)
    description = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    description.AlgorithmVersion = "bright:7"
    seg.save_as(target)
    other = run("predict", "--domain", "bright", "-i", folder, "-o", target, "--skip-existing")
    assert (other.exit_code, "labels.dcm is by bright:7" in other.stderr) == (5, True)
    missing = run("predict", "--domain", "bright", "-i", folder, "-o", target, "--series", "1.2")
    assert missing.exit_code == 5  # the target exists
    arguments = ["-i", folder, "-o", tmp_path / "b.dcm", "--series", "1.2"]
    wrong = run("predict", "--domain", "bright", *arguments)
    assert wrong.exit_code == 4
    assert f"{uid}: made, MR, 20 slices" in wrong.stderr


def test_evaluate_scores_the_test_cases_and_keeps_the_scores(added, tmp_path) -> None:
    target = tmp_path / "scores.csv"
    result = run("evaluate", "bright", "--output", target, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)["data"]
    assert report["mean"]["cases"] == 3  # a fifth of twelve, for the second of five folds: 1, 6, 11
    assert added.versions.get("bright", 1).metrics["test"] == report["mean"]
    assert len(list(csv.DictReader(target.open()))) == 3


def test_scores_are_shown_before_mlflow_is_told_also_where_a_case_failed(
    added, bright_data, monkeypatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(register, "keep_registered", interrupted)
    (bright_data / "imagesTr" / "case_1.nii.gz").write_bytes(b"")
    result = run("evaluate", "bright", "--json")
    assert result.exit_code == 130, result.output
    assert json.loads(result.stdout)["data"]["mean"]["failures"] == 1


def test_versions_of_other_folds_are_scored_as_one(
    added, settings, publish_bright, bright_data, tmp_path, monkeypatch
) -> None:
    split = {"test": ["case_3", "case_4"], "validation": [], "training": ["case_0"]}
    seen = {"bright": {"split": split}}
    first = added.runs.get(added.find("bright:1").run_id)
    added.runs.create(first.model_copy(update={"id": "other", "fold": 2, "fingerprints": seen}))
    publish_bright(bright_data, run_id="other")
    told = []
    monkeypatch.setattr(register, "keep_registered", lambda _, domains, __: told.append(domains))
    result = run("evaluate", "bright:1", "bright:2", "--pictures", tmp_path / "a.png", "--json")
    assert result.exit_code == 0, result.output
    assert told == [{"bright"}]
    report = json.loads(result.stdout)["data"]
    assert report["version"] == "bright:1, bright:2"
    assert [case["case_id"] for case in report["cases"]] == [f"case_{k}" for k in range(5)]
    kept = [added.find(f"bright:{k}").metrics["test"] for k in (1, 2)]
    assert [one["cases"] for one in kept] == [3, 2]
    dice = [one["overall"]["dice"] for one in kept]
    assert report["mean"]["overall"]["dice"] == pytest.approx((3 * dice[0] + 2 * dice[1]) / 5)
    assert (tmp_path / "a.png").is_file()
    folder = tmp_path / "predicted"
    folder.mkdir()
    (folder / "case_3.nii.gz").write_bytes(b"")
    there = run("evaluate", "bright:1", "bright:2", "--labels", folder)  # of the second version
    assert there.exit_code == 5
    assert len(list(folder.iterdir())) == 1
    twice = run("evaluate", "bright:1", "bright:2", "--cases", "all", "--json")
    assert twice.exit_code == 6
    assert "case_0 is a case of both bright:1 and bright:2" in json.loads(twice.stdout)["message"]


def test_scores_of_a_part_are_shown_and_not_kept(added) -> None:
    result = run("evaluate", "bright:1", "--limit", "1", "--cases", "all")
    assert result.exit_code == 0, result.output
    assert "organ" in result.stdout
    assert "1 cases (all), 0 failed" in result.stdout
    assert added.versions.get("bright", 1).metrics == {}


def test_scores_on_another_data_set_are_kept_by_name_and_let_a_version_into_service(
    added, settings, bright_data, tmp_path, monkeypatch
) -> None:
    deploy = ("model", "deploy", "bright:1")
    assert run(*deploy).exit_code == 6
    same, other = tmp_path / "same", tmp_path / "ward"
    for folder in (same, other):
        shutil.copytree(bright_data, folder)
    for file in other.glob("images*/*"):
        SimpleITK.WriteImage(SimpleITK.ReadImage(file) + 1, file)
    evaluate = ("evaluate", "bright", "--cases", "all", "--data")
    assert run("evaluate", "bright", "--keep", "ward").exit_code == 2
    assert run(*evaluate, other, "--keep", "The Ward").exit_code == 2
    own = run(*evaluate, same, "--keep", "ward", "--json")
    assert (own.exit_code, "has learned from" in json.loads(own.stdout)["message"]) == (4, True)
    watched = tmp_path / "watched"
    shutil.copytree(other, watched)
    for kind in ("images", "labels"):
        shutil.copy(*(one / f"{kind}Tr" / "case_3.nii.gz" for one in (bright_data, watched)))
    own = run(*evaluate, watched, "--keep", "ward", "--json")
    assert (own.exit_code, "watched case_3" in json.loads(own.stdout)["message"]) == (4, True)
    # Also where the data have gone, as training has prepared them.
    loaded = load_predictor(settings, "bright:1", choose_device("cpu"))
    (case,) = [one for one in open_dataset(bright_data).training if one.id == "case_4"]
    PreparedStore(settings.prepared_dir).prepare(loaded.plugin, loaded.plan, case)
    away = bright_data.rename(tmp_path / "away")
    own = run(*evaluate, same, "--keep", "ward", "--json")
    # All have the same voxels; the first is a watched one.
    assert (own.exit_code, "case_3" in json.loads(own.stdout)["message"]) == (4, True)
    away.rename(bright_data)
    result = run(*evaluate, other, "--keep", "ward", "--json")
    assert result.exit_code == 0, result.output
    assert "9 cases have names of patients" in result.stderr  # 8 trained, 1 was watched
    mean = json.loads(result.stdout)["data"]["mean"]
    assert added.find("bright:1").metrics == {"external/ward": mean}
    # As of a version that came in a bundle, whose run names no cases.
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "learned_cases", lambda *_: defaultdict(set))
        told = run(*evaluate, other, "--keep", "again").stderr
    assert "does not say which cases" in told
    assert run(*deploy).exit_code == 0
    shown = run("model", "show", "bright:1").stdout
    assert ("external/ward" in shown, "cases: 12, failed: 0" in shown) == (True, True)
    bundle = tmp_path / "bright.u2net"
    assert run("model", "export", "bright:1", "-o", bundle).exit_code == 0
    with zipfile.ZipFile(bundle) as members:
        assert json.loads(members.read("metrics.json")) == {}


def test_a_report_format_that_is_not_written_is_refused_at_once(added, tmp_path) -> None:
    result = run("evaluate", "bright", "--output", tmp_path / "scores.xls")
    assert result.exit_code == 4
    assert "does not end in .json or .csv" in result.stderr


def test_a_report_that_cannot_be_written_is_refused_before_the_work(added, tmp_path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "dataset.json").write_text("{}")
    for name in ("folder.json", "dataset.json"):
        assert run("evaluate", "bright", "--output", tmp_path / name).exit_code == 5
    assert (tmp_path / "dataset.json").read_text() == "{}"
    (tmp_path / "file").write_text("no folder")
    for option, name in (("--output", "scores.csv"), ("--pictures", "worst.png")):
        result = run("evaluate", "bright", option, tmp_path / "file" / name)
        assert (result.exit_code, added.find("bright:1").metrics) == (5, {})


def test_memory_and_mirroring_are_asked_for_by_options(added, bright_data, tmp_path) -> None:
    image = bright_data / "imagesTr" / "case_0.nii.gz"
    common = ("predict", "--domain", "bright", "-i", image, "--json", "-o")
    fine = run(*common, tmp_path / "a.nii.gz", "--memory", "20GiB", "--mirror")
    assert fine.exit_code == 0, fine.output
    small = run(*common, tmp_path / "b.nii.gz", "--memory", "1MB")
    assert (small.exit_code, json.loads(small.stdout)["error_code"]) == (4, "TooLarge")
    assert run(*common, tmp_path / "c.nii.gz", "--memory", "much").exit_code == 2
    twice = run(*common, tmp_path / "d", "--domain", "bright:1")
    assert (twice.exit_code, "named twice" in twice.output) == (2, True)
