"""The paper's protocol on any domains: three modes and a new domain, with equal budgets.

A study keeps nothing of its own. Its runs are looked up in the catalog: one that is completed is
not made again, one that was stopped goes on, and none counts whose data or plugins have changed.
So a study is stopped and resumed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord, VersionRecord
from u2net_platform.errors import NothingToResume
from u2net_platform.inference.device import choose_device
from u2net_platform.model.counting import Counts, count_parameters
from u2net_platform.model.topology import Architecture, ArchitectureName, Topology
from u2net_platform.settings import Settings
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Watcher
from u2net_platform.workflows.add_domain import require_trainable
from u2net_platform.workflows.evaluate import evaluate_test
from u2net_platform.workflows.register import keep_registered
from u2net_platform.workflows.request import Request, request_of
from u2net_platform.workflows.train import OnPrepare, is_current, resume, start

Mode = Literal["independent", "shared", "universal"]
MODES: tuple[Mode, ...] = ("independent", "shared", "universal")
# Source: paper, Tables 2 and 3: Dice in percent by class, in the order of the domain's labels.
PAPER_DICE: Mapping[str, Mapping[Mode, tuple[float, ...]]] = {
    "heart": {"independent": (93.26,), "shared": (92.73,), "universal": (91.98,)},
    "liver": {"independent": (95.02,), "shared": (93.40,), "universal": (93.54,)},
    "hippocampus": {
        "independent": (89.62, 87.74),
        "shared": (89.25, 87.30),
        "universal": (89.34, 87.05),
    },
    "prostate": {
        "independent": (58.39, 87.18),
        "shared": (68.38, 89.30),
        "universal": (68.50, 89.21),
    },
    "pancreas": {"independent": (78.78,), "shared": (57.57,), "universal": (62.08,)},
    "spleen": {"independent": (92.37,), "shared": (90.67,), "universal": (91.60,)},
}
PAPER_NEW = "spleen"  # which the other five were trained without
PAPER_PARAMETERS: Mapping[Mode, tuple[str, str]] = {
    "independent": ("126.7M", "30.7M"),
    "shared": ("30.7M", "0"),
    "universal": ("1.7M", "0.1M"),
}


@dataclass(frozen=True)
class Study:
    """domains are trained in every mode; `new` is trained on its own, and frozen onto the others.

    Each domain gets the same number of optimiser steps everywhere, the recipe's cycles: they take
    turns, whatever its temperature. With the schedule `plateau` a run ends by itself instead.
    """

    domains: tuple[str, ...]
    new: str | None
    recipe: Recipe
    architecture: ArchitectureName = "lean"
    seed: int = 0
    fold: int = 0
    device: str = "auto"
    workers: int | None = None


@dataclass(frozen=True)
class ModeResult:
    """Dice (0..1) by domain and class on test cases; optimiser steps that each domain made; weights
    of the whole network, and those that the new domain adds; seconds from the start to the end of
    the runs, pauses included."""

    mode: Mode
    versions: tuple[str, ...]
    dice: dict[str, dict[str, float | None]]
    failures: int
    steps: dict[str, int]
    parameters: int
    added: int | None
    seconds: float

    def mean(self, domain: str) -> float | None:
        """Of the domain's classes; one that no test case has is left out. None if all are."""
        found = [value for value in self.dice[domain].values() if value is not None]
        return fmean(found) if found else None


@dataclass(frozen=True)
class StudyResult:
    study: Study
    cases: dict[str, int]
    modes: tuple[ModeResult, ...]


def run_study(
    settings: Settings,
    study: Study,
    watcher: Watcher,
    on_prepare: OnPrepare,
    on_case: Callable[[str], None],
) -> StudyResult:
    """Train and evaluate what is missing, one run after the other.

    Raises:
        Interrupted: a signal came; the same study goes on from there.
        U2NetError: as `train.start` and `train.resume`.
    """
    catalog = Catalog.open(settings.database_url)
    require_trainable(settings, catalog, [*study.domains, *([study.new] if study.new else [])])
    modes: list[ModeResult] = []
    cases: dict[str, int] = {}
    for mode in MODES:
        runs = [
            _ensured(settings, catalog, request, watcher, on_prepare)
            for request in _requests(study, mode)
        ]
        if study.new:
            runs.append(
                _ensured(
                    settings, catalog, _of_new(study, mode, catalog, runs), watcher, on_prepare
                )
            )
        versions = [version for run in runs for version in catalog.versions.by_run(run.id)]
        versions = [_evaluated(settings, study, version, on_case) for version in versions]
        keep_registered(settings, {one.domain for one in versions}, watcher.on_note)
        cases |= {one.domain: one.metrics["test"]["cases"] for one in versions}
        modes.append(_result(study, mode, runs, versions))
    return StudyResult(study, cases, tuple(modes))


def _requests(study: Study, mode: Mode) -> Iterator[Request]:
    groups = [(name,) for name in study.domains] if mode == "independent" else [study.domains]
    for group in groups:
        yield _request(study, group, mode)


def _of_new(study: Study, mode: Mode, catalog: Catalog, runs: list[RunRecord]) -> Request:
    assert study.new is not None
    if mode == "independent":
        return _request(study, (study.new,), mode)
    (base, *_) = catalog.versions.by_run(runs[0].id)
    return _request(study, (study.new,), mode, base.reference)


def _request(
    study: Study, domains: tuple[str, ...], mode: Mode, base: str | None = None
) -> Request:
    return Request(
        domains=domains,
        recipe=study.recipe.model_copy(update={"temperature": None}),
        mode=mode,
        architecture=study.architecture,
        base=base,
        frozen=base is not None,
        seed=study.seed,
        fold=study.fold,
        device=study.device,
        workers=study.workers,
    )


def _ensured(
    settings: Settings,
    catalog: Catalog,
    request: Request,
    watcher: Watcher,
    on_prepare: OnPrepare,
) -> RunRecord:
    """The completed run of a request: found, resumed or made."""
    alike = [run for run in catalog.runs.list() if _is_of(settings, run, request, on_prepare)]
    completed = [run for run in alike if run.status == "completed"]
    if completed:
        return completed[0]
    for run in alike:
        with suppress(NothingToResume):
            return resume(settings, run.id, watcher, on_prepare).run
    return start(settings, request, watcher, on_prepare).run


def _is_of(settings: Settings, run: RunRecord, request: Request, on_prepare: OnPrepare) -> bool:
    """Whether a run computes what is asked for, from data and plugins as they are now."""
    if run.domains != request.domains or run.fold != request.fold or run.seed != request.seed:
        return False
    found = request_of(settings, run.id)
    if found is None:
        return False
    asides = {"device", "workers", "plans", "plugins", "mlflow_run_id"}
    asides |= {"frozen", "starts", "learned"}
    same = found.model_dump(exclude=asides) == request.model_dump(exclude=asides)
    same = same and found.adapts == request.adapts
    return same and is_current(settings, run, found, on_prepare)


def _evaluated(
    settings: Settings, study: Study, version: VersionRecord, on_case: Callable[[str], None]
) -> VersionRecord:
    found = version.metrics.get("test")
    if found and not found["failures"]:  # what failed may have been a drive that was away
        return version
    return evaluate_test(settings, version.reference, choose_device(study.device), on_case)


def _result(
    study: Study, mode: Mode, runs: list[RunRecord], versions: list[VersionRecord]
) -> ModeResult:
    old = [version for version in versions if version.domain != study.new]
    own = [version for version in versions if version.domain == study.new]
    each = [[version] for version in old] if mode == "independent" else [old]
    added: int | None = None
    for version in own:
        counts = _counts([version])
        added = counts.everything_by_domain[version.domain]
        added += counts.everything_shared if mode == "independent" else 0
    return ModeResult(
        mode=mode,
        versions=tuple(version.reference for version in versions),
        dice={
            version.domain: {
                name: means["dice"] for name, means in version.metrics["test"]["classes"].items()
            }
            for version in versions
        },
        failures=sum(version.metrics["test"]["failures"] for version in versions),
        steps={name: run.step // len(run.domains) for run in runs for name in run.domains},
        parameters=sum(_counts(group).everything for group in each),
        added=added,
        seconds=sum(
            (run.ended_at - run.started_at).total_seconds() for run in runs if run.ended_at
        ),
    )


def _counts(versions: list[VersionRecord]) -> Counts:
    """Of one network with these versions' domains."""
    architecture = Architecture.model_validate(versions[0].backbone_architecture)
    return count_parameters(
        architecture, {one.domain: Topology.model_validate(one.architecture) for one in versions}
    )


def to_markdown(result: StudyResult) -> str:
    """Both tables, with the paper's figures beside the domains that it has, and what lost."""
    study = result.study
    names = [*study.domains, *([study.new] if study.new else [])]
    header = ["Dice, %", "test cases", *MODES, *(f"paper, {mode}" for mode in MODES)]
    rows = [row for name in names for row in _rows(result, name)]
    means = _means(result, names)
    old = [means[name] for name in study.domains if name in means]
    ours = [_percent(fmean(one)) for one in zip(*old, strict=True)] or ["-" for _ in MODES]
    theirs = [f"{_paper_mean(mode):.1f}" for mode in MODES]
    rows.append([f"**mean of {len(old)} domains, without the new**", "", *ours, *theirs])
    sizes = [
        [
            one.mode,
            ", ".join(f"{name} {count:,}" for name, count in one.steps.items()),
            f"{one.parameters:,}",
            "-" if one.added is None else f"{one.added:,}",
            *PAPER_PARAMETERS[one.mode],
            f"{one.seconds / 60:.0f}",
            str(one.failures),
        ]
        for one in result.modes
    ]
    sizes_header = [
        *("mode", "steps", "weights", "added by the new domain"),
        *("paper, its counting", "paper, added", "minutes, pauses included", "cases failed"),
    ]
    recipe = study.recipe
    steps = f"{recipe.cycles} steps of every domain"
    if recipe.schedule == "plateau":
        length = f"each run ends by itself, at the latest after {steps}"
    else:
        length = f"{steps} in every mode"
    budget = (
        f"Budget: {length}, in turn, recipe {recipe.name}, "
        f"batches of up to {recipe.batch_voxels:,} voxels, architecture {study.architecture}, "
        f"fold {study.fold}, seed {study.seed}. The paper's means are over its own five domains, "
        "of the mean of each one's classes."
    )
    parts = [budget, _table(header, rows), _table(sizes_header, sizes), *_verdicts(result, means)]
    return "\n\n".join(parts) + "\n"


def _means(result: StudyResult, names: list[str]) -> dict[str, list[float]]:
    """By domain, its mean Dice in each mode; without domains that have none in some mode."""
    found = {name: [one.mean(name) for one in result.modes] for name in names}
    return {
        name: [value for value in values if value is not None]
        for name, values in found.items()
        if None not in values
    }


def _paper_mean(mode: Mode) -> float:
    """Of the domains that its networks were trained with, as `ModeResult.mean` of each."""
    return fmean(fmean(dice[mode]) for name, dice in PAPER_DICE.items() if name != PAPER_NEW)


def _rows(result: StudyResult, name: str) -> Iterator[list[str]]:
    new = " (new, frozen backbone)" if name == result.study.new else ""
    labels = result.modes[0].dice[name]
    for position, label in enumerate(labels):
        found = [_percent(one.dice[name][label]) for one in result.modes]
        papers = [PAPER_DICE.get(name, {}).get(mode, ()) for mode in MODES]
        # A domain of one's own may have the name of one of the paper's, and other classes.
        theirs = [f"{p[position]:.1f}" if len(p) == len(labels) else "-" for p in papers]
        yield [f"{name}{new}: {label}", str(result.cases[name]), *found, *theirs]


def _verdicts(result: StudyResult, means: Mapping[str, list[float]]) -> Iterator[str]:
    """A sentence for each mode that shares weights: by how much it wins or loses, and where."""
    for place, one in enumerate(result.modes[1:] if means else (), start=1):
        gains = {name: 100 * (dice[place] - dice[0]) for name, dice in means.items()}
        told = ", ".join(f"{name} {gain:+.1f}" for name, gain in gains.items())
        lost = [name for name, gain in gains.items() if gain < 0]
        verdict = f"It loses on {', '.join(lost)}." if lost else "It loses nowhere."
        yield f"{one.mode.capitalize()} against independent, in points of Dice: {told}. {verdict}"


def _percent(dice: float | None) -> str:
    return "-" if dice is None else f"{100 * dice:.1f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
