"""The scores of one version over a set of cases, with the cases that failed among them.

A case that fails counts as Dice 0 and surface Dice 0 for every class and is named with its error.
It has no distance: HD95 is the mean over the cases that have one, and the number of failures
stands beside it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from u2net_platform.evaluation.metrics import ClassScores

FAILED = ClassScores(0.0, None, 0.0, 0.0, 0.0)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class CaseResult(Frozen):
    """Scores by class, or the error (its code, then the reason) that left the case without."""

    case_id: str
    scores: dict[str, ClassScores] | None
    error: str | None = None


class Means(Frozen):
    """Means over the cases of one class, or over classes; None where no case has a value."""

    dice: float | None
    hd95_mm: float | None
    surface_dice: float | None


class Summary(Frozen):
    """`absent`: per class, the cases where neither volume has it, which enter no mean."""

    classes: dict[str, Means]
    overall: Means
    cases: int
    failures: int
    absent: dict[str, int]


class Report(Frozen):
    """`version` is the reference of what was evaluated, such as heart:3, or several of them."""

    domain: str
    version: str
    classes: tuple[str, ...]
    cases: tuple[CaseResult, ...]

    @classmethod
    def pooled(cls, reports: Sequence[Report]) -> Report:
        """One report of the cases of all, which have the same domain and classes."""
        first = reports[0]
        return cls(
            domain=first.domain,
            version=", ".join(report.version for report in reports),
            classes=first.classes,
            cases=tuple(case for report in reports for case in report.cases),
        )

    def mean(self) -> Summary:
        """Mean of every class over its cases, and the mean of the classes."""
        scores = {name: [_scores(case, name) for case in self.cases] for name in self.classes}
        means = {name: _mean(found) for name, found in scores.items()}
        return Summary(
            classes=means,
            overall=_mean(means.values()),
            cases=len(self.cases),
            failures=sum(case.scores is None for case in self.cases),
            absent={
                name: sum(score.dice is None for score in found) for name, found in scores.items()
            },
        )

    def worst(self, count: int) -> list[str]:
        """The cases with the lowest mean Dice of their classes, worst first; no failed ones."""
        dice = {
            case.case_id: value
            for case in self.cases
            if case.scores and (value := _mean(case.scores.values()).dice) is not None
        }
        return sorted(dice, key=dice.__getitem__)[:count]

    def document(self) -> dict[str, Any]:
        """The report and its means as JSON values."""
        return {**self.model_dump(mode="json"), "mean": self.mean().model_dump(mode="json")}

    def to_csv(self) -> str:
        """One row per case and class, header first; a failed case has its rows too."""
        text = io.StringIO()
        names = [field.name for field in fields(ClassScores)]
        writer = csv.DictWriter(text, ["case_id", "class", *names, "error"], lineterminator="\n")
        writer.writeheader()
        for case in self.cases:
            for name in self.classes:
                row = {"case_id": case.case_id, "class": name, "error": case.error}
                writer.writerow({**row, **asdict(_scores(case, name))})
        return text.getvalue()


def _scores(case: CaseResult, name: str) -> ClassScores:
    return FAILED if case.scores is None else case.scores[name]


def _mean(scores: Iterable[ClassScores | Means]) -> Means:
    scores = list(scores)
    return Means(
        dice=_mean_of(score.dice for score in scores),
        hd95_mm=_mean_of(score.hd95_mm for score in scores),
        surface_dice=_mean_of(score.surface_dice for score in scores),
    )


def _mean_of(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None
