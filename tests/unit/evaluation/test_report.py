import csv
import io

import pytest

from u2net_platform.evaluation.metrics import ClassScores
from u2net_platform.evaluation.report import CaseResult, Report

ABSENT = ClassScores(None, None, None, 0.0, 0.0)


@pytest.fixture
def report() -> Report:
    good = CaseResult(
        case_id="a", scores={"left": ClassScores(0.9, 2.0, 0.8, 1.0, 1.1), "right": ABSENT}
    )
    failed = CaseResult(case_id="b", scores=None, error="MemoryError: no room")
    return Report(domain="pair", version="pair:1", classes=("left", "right"), cases=(good, failed))


def test_a_failed_case_counts_as_zero_and_an_absent_class_not_at_all(report: Report) -> None:
    mean = report.mean()
    assert mean.failures == 1
    assert mean.cases == 2
    assert mean.classes["left"].dice == pytest.approx(0.45)
    assert mean.classes["left"].surface_dice == pytest.approx(0.4)
    assert mean.classes["left"].hd95_mm == 2.0
    assert mean.absent == {"left": 0, "right": 1}
    assert mean.classes["right"].dice == 0.0
    assert mean.overall.dice == pytest.approx(0.225)


def test_a_class_absent_everywhere_leaves_the_overall_mean_alone(report: Report) -> None:
    mean = report.model_copy(update={"cases": report.cases[:1]}).mean()
    assert mean.classes["right"].dice is None
    assert mean.overall.dice == pytest.approx(0.9)


def test_the_table_has_a_row_per_case_and_class_with_the_error_named(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [(row["case_id"], row["class"]) for row in rows] == [
        ("a", "left"), ("a", "right"), ("b", "left"), ("b", "right"),
    ]  # fmt: skip
    assert (rows[0]["dice"], rows[1]["dice"], rows[2]["dice"]) == ("0.9", "", "0.0")
    assert rows[3]["error"] == "MemoryError: no room"


def test_json_holds_the_report_and_reads_back(report: Report) -> None:
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.document()["mean"]["failures"] == 1


def test_the_worst_cases_are_those_with_the_lowest_mean_dice(report: Report) -> None:
    def case(name: str, left: float, right: float | None) -> CaseResult:
        scores = {
            "left": ClassScores(left, 1.0, left, 1.0, 1.0),
            "right": ClassScores(right, None, right, 1.0, 1.0),
        }
        return CaseResult(case_id=name, scores=scores)

    absent = CaseResult(case_id="e", scores={"left": ABSENT, "right": ABSENT})
    cases = (*report.cases, case("c", 0.9, 0.2), case("d", 0.6, None), absent)
    report = report.model_copy(update={"cases": cases})
    assert report.worst(2) == ["c", "d"]
    assert report.worst(9) == ["c", "d", "a"]
