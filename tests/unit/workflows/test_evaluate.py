import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.data.dataset import Case
from u2net_platform.errors import DiskFull, InvalidDataset, MissingFile, NotWritable
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.imaging.volume import read_labels, to_sitk
from u2net_platform.workflows.evaluate import cases_of, evaluate_cases, sheet_rows
from u2net_platform.workflows.labeller import Labeller
from u2net_platform.workflows.versions import LoadedVersion


@pytest.fixture
def case(tmp_path: Path, scan, organ) -> Case:
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    SimpleITK.WriteImage(to_sitk(scan.array[0], scan.grid), str(image))
    SimpleITK.WriteImage(to_sitk(organ, scan.grid), str(label))
    return Case("good", (image,), label)


def test_a_case_is_scored_on_its_own_grid(bright_predictor, bright, case, organ, oblique) -> None:
    report = evaluate_cases(Labeller(bright_predictor), [case], lambda _: None)
    scores = report.cases[0].scores["organ"]
    assert scores.dice > 0.9
    assert scores.hd95_mm < 3
    volume_ml = organ.sum() * np.prod(oblique.spacing_zyx_mm) / 1000
    assert scores.reference_ml == pytest.approx(volume_ml)


def test_what_was_predicted_goes_into_a_new_folder(bright_predictor, case, tmp_path) -> None:
    folder = tmp_path / "new" / "found"
    labeller = Labeller(bright_predictor, "bright:1")
    header = bytearray(gzip.decompress(case.label.read_bytes()))
    header[254:256] = (4).to_bytes(2, "little")  # sform_code: of the MNI space
    case.label.write_bytes(gzip.compress(header))
    report = evaluate_cases(labeller, [case], lambda _: None, folder)
    found, truth = read_labels(folder / "good.nii.gz"), read_labels(case.label)
    assert dice_by_class(truth.array, found.array, 2)[1] == report.cases[0].scores["organ"].dice
    assert gzip.decompress((folder / "good.nii.gz").read_bytes())[252:328] == header[252:328]
    assert json.loads((folder / "good.labels.json").read_text())["version"] == "bright:1"
    with pytest.raises(NotWritable, match=r"good\.nii\.gz exists already"):
        evaluate_cases(labeller, [case], lambda _: None, folder)


def test_what_is_odd_about_a_case_stands_beside_its_labels(
    bright_predictor, case, scan, tmp_path
) -> None:
    image = to_sitk(scan.array[0] - 1500, scan.grid)
    SimpleITK.WriteImage(image, str(case.images[0]))
    folder = tmp_path / "found"
    evaluate_cases(Labeller(bright_predictor), [case], lambda _: None, folder)
    (warning,) = json.loads((folder / "good.labels.json").read_text())["warnings"]
    assert "image.nii.gz is declared as MR" in warning


def test_a_full_disk_ends_an_evaluation_and_is_no_score(
    bright_predictor, case, tmp_path, monkeypatch
) -> None:
    def full(*_, **__):
        raise DiskFull("No room", "Free some.")

    monkeypatch.setattr(Labeller, "write", full)
    with pytest.raises(DiskFull):
        evaluate_cases(Labeller(bright_predictor), [case], lambda _: None, tmp_path / "found")


def test_cases_that_fail_are_named_and_count_as_zero(
    bright_predictor, bright, case, tmp_path
) -> None:
    missing = Case("gone", (tmp_path / "gone.nii.gz",), case.label)
    unlabelled = Case("bare", case.images, None)
    done: list[str] = []
    report = evaluate_cases(
        Labeller(bright_predictor), [missing, case, unlabelled], done.append, tmp_path / "found"
    )
    files = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert files == ["good.labels.json", "good.nii.gz"]
    assert done == ["gone", "good", "bare"]
    assert report.cases[0].error.startswith("MissingFile: ")
    assert report.cases[2].error.startswith("MissingFile: case bare has no label")
    mean = report.mean()
    assert mean.failures == 2
    assert mean.overall.dice == pytest.approx(report.cases[1].scores["organ"].dice / 3)


def test_running_out_of_memory_is_recorded_and_the_next_case_goes_on(
    bright_predictor, bright, case, monkeypatch
) -> None:
    real = bright_predictor.predict_made
    attempts = iter([MemoryError("no room"), None])

    def sometimes(*arguments):
        if error := next(attempts):
            raise error
        return real(*arguments)

    monkeypatch.setattr(bright_predictor, "predict_made", sometimes)
    report = evaluate_cases(Labeller(bright_predictor), [case, case], lambda _: None)
    assert report.cases[0].error == "MemoryError: no room"
    assert report.cases[1].error is None


def test_a_case_without_the_organ_is_absent_and_no_failure(
    bright_predictor, bright, case, scan
) -> None:
    """An empty reference is a fault of a training case; here it is scored."""
    SimpleITK.WriteImage(
        to_sitk(np.zeros_like(scan.array[0], np.uint8), scan.grid), str(case.label)
    )
    report = evaluate_cases(Labeller(bright_predictor), [case], lambda _: None)
    assert report.cases[0].error is None
    assert report.cases[0].scores["organ"].dice == 0.0  # the prediction is not empty


@pytest.fixture
def catalog(settings) -> Catalog:
    return Catalog.open(settings.database_url)


@pytest.fixture
def version(publish_bright, bright_data) -> VersionRecord:
    return publish_bright(bright_data)


@pytest.mark.parametrize(
    ("part", "numbers"), [("training", range(4, 12)), ("validation", [3]), ("test", [0, 1, 2])]
)
def test_the_split_is_the_one_that_the_run_noted(catalog, version, part, numbers) -> None:
    found = [case.id for case in cases_of(catalog, version, part)]
    assert sorted(found) == sorted(f"case_{number}" for number in numbers)
    assert len(cases_of(catalog, version, "all")) == 12


def test_a_case_that_joins_the_data_set_moves_no_other(catalog, version, bright_data) -> None:
    before = [case.id for case in cases_of(catalog, version, "test")]
    for kind in ("imagesTr", "labelsTr"):
        first = bright_data / kind / "case_0.nii.gz"
        (bright_data / kind / "case_99.nii.gz").write_bytes(first.read_bytes())
    description = json.loads((bright_data / "dataset.json").read_text())
    pair = {"image": "imagesTr/case_99.nii.gz", "label": "labelsTr/case_99.nii.gz"}
    description["training"].append(pair)
    (bright_data / "dataset.json").write_text(json.dumps(description))
    assert [case.id for case in cases_of(catalog, version, "test")] == before
    assert len(cases_of(catalog, version, "all")) == 13


def test_a_data_set_that_is_not_there_is_named(catalog, version, tmp_path) -> None:
    with pytest.raises(MissingFile, match="elsewhere"):
        cases_of(catalog, version, "test", tmp_path / "elsewhere")


def test_test_cases_that_are_gone_are_named_and_no_other_mean_is_taken_for_theirs(
    catalog, version, bright_data
) -> None:
    description = json.loads((bright_data / "dataset.json").read_text())
    kept = [one for one in description["training"] if "case_1." not in one["image"]]
    (bright_data / "dataset.json").write_text(json.dumps(description | {"training": kept}))
    with pytest.raises(InvalidDataset, match=r"1 of 3 test cases of bright:1 .*: case_1"):
        cases_of(catalog, version, "test")
    assert len(cases_of(catalog, version, "all")) == 11


def test_what_is_to_be_ignored_is_so_in_a_case_without_the_organ(
    bright_predictor, case, scan, organ
) -> None:
    spec = bright_predictor.plugin.spec
    ignoring = spec.model_copy(update={"ignore": (7,)})
    bright_predictor.plugin = replace(bright_predictor.plugin, spec=ignoring)

    def found_ml(label: np.ndarray) -> float:
        SimpleITK.WriteImage(to_sitk(label, scan.grid), str(case.label))
        (one,) = evaluate_cases(Labeller(bright_predictor), [case], lambda _: None).cases
        return one.scores["organ"].predicted_ml

    # What is found lies within, but for a rim.
    assert found_ml(7 * organ) < 0.3 * found_ml(0 * organ)


def test_a_case_without_the_organ_has_a_picture_too(
    version, bright_predictor, bright, case, scan
) -> None:
    nothing = np.zeros_like(scan.array[0], np.uint8)
    SimpleITK.WriteImage(to_sitk(nothing, scan.grid), str(case.label))
    loaded = LoadedVersion(version, bright_predictor, bright, bright_predictor.plan)
    (row,) = sheet_rows([(loaded, case)])
    assert not row.reference.any()
    assert row.prediction.any()
    assert row.title == "bright:1, good: Dice organ 0.00"
