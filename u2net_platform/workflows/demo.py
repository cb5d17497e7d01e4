"""The main job from end to end: on phantoms that it makes, or on real data sets.

Two domains (all but the last) are trained together; the last is added afterwards, on the frozen
backbone. Everything lies in one folder, with a home of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.data.checkup import check_dataset
from u2net_platform.data.dataset import Case, Dataset, open_dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.domains.discovery import discover, find_plugin
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import Conflict, DataError, InvalidCases, MissingFile, NotWritable
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.evaluation.pictures import write_sheet
from u2net_platform.evaluation.report import Report
from u2net_platform.inference.device import choose_device
from u2net_platform.settings import Settings
from u2net_platform.testing.phantoms import PHANTOMS, write_phantom, write_phantom_plugin
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Watcher
from u2net_platform.workflows.add_domain import add_domain, data_dir_of
from u2net_platform.workflows.evaluate import (
    cases_of,
    evaluate_cases,
    keep_scores,
    sheet_rows,
)
from u2net_platform.workflows.labeller import Labeller
from u2net_platform.workflows.new_domain import write_plugin
from u2net_platform.workflows.predict import failure_of, predict_paths
from u2net_platform.workflows.register import keep_registered
from u2net_platform.workflows.request import Request
from u2net_platform.workflows.train import Finished, start
from u2net_platform.workflows.versions import LoadedVersion, load_predictor

PHANTOM_CASES = 14
FEWEST_CASES = 5  # of a data set, to be trained on
SHEET_CASES = 1  # of each domain
NEW_DOMAIN_SHARE = 0.3  # of the minutes


class Narrator(Watcher, Protocol):
    """Whoever tells the story while it happens."""

    def say(self, command: str) -> None:
        """The command that would do what happens next."""

    def on_prepare(self, domain: str, case: str) -> None: ...

    def on_case(self, case: str) -> None: ...


@dataclass(frozen=True)
class DemoOptions:
    """`data` is a folder of MSD or nnU-Net folders; None makes phantoms."""

    directory: Path
    data: Path | None
    minutes: float
    seed: int
    device: str


@dataclass(frozen=True)
class DomainResult:
    """`constant_dice`: of the best answer that is the same for every voxel of every case."""

    version: str
    dice: float
    constant_dice: float
    hd95_mm: float | None
    cases: int
    failures: int


@dataclass(frozen=True)
class DemoResult:
    """`unchanged`: the older versions, whose weights were the same bytes before and after."""

    home: Path
    sheet: Path
    predictions: Path
    domains: tuple[DomainResult, ...]
    unchanged: tuple[str, ...]


def run_demo(options: DemoOptions, narrator: Narrator) -> DemoResult:
    """Add, check, train, add one more, predict, evaluate.

    Raises:
        NotWritable: the demo's folder is there already.
        MissingFile: `data` holds fewer than two data sets that can be trained on.
        U2NetError: whatever a step of the story meets.
    """
    if options.directory.exists():
        raise NotWritable(
            f"{options.directory} exists already", "Remove it, or choose another --output."
        )
    settings = Settings(  # its own, whatever the environment says of the user's
        home=options.directory / "home", plugins=None, catalog_url=None, tracking_uri=None
    )
    catalog = Catalog.open(settings.database_url)
    names = _add_domains(settings, catalog, options, narrator)
    *known, new = names
    trained = _train(settings, known, None, options, narrator)
    before = _stored(settings, trained.versions)
    adapted = _train(settings, [new], trained.versions[0].reference, options, narrator)
    if _stored(settings, trained.versions) != before:
        raise Conflict("an older domain has changed", "A fault of the program: report it.")
    results, rows = [], []
    for version in (*trained.versions, *adapted.versions):
        loaded = load_predictor(settings, version.reference, choose_device(options.device))
        results.append(_evaluate(catalog, loaded, narrator))
        cases = cases_of(catalog, loaded.record, "test")[:SHEET_CASES]
        rows += sheet_rows([(loaded, case) for case in cases])
    keep_registered(settings, names, narrator.on_note)
    predictions = options.directory / "predictions"
    _predict(settings, catalog, adapted.versions[0], predictions, options.device, narrator)
    sheet = options.directory / "sheet.png"
    write_sheet(sheet, rows, _curves(trained, adapted))
    unchanged = tuple(version.reference for version in trained.versions)
    return DemoResult(settings.home, sheet, predictions, tuple(results), unchanged)


def _add_domains(
    settings: Settings, catalog: Catalog, options: DemoOptions, narrator: Narrator
) -> list[str]:
    if options.data is None:
        folders = _phantoms(settings, options)
    else:
        folders = _real(settings, options.data)
    for name, folder in folders.items():
        narrator.say(f"u2net domain add {name} --data {folder}")
        found = find_plugin(name, settings)
        add_domain(found, catalog, folder)
        narrator.say(f"u2net domain check {name}")
        assert found.plugin is not None  # find_plugin gives working plugins only
        _check(found.plugin, open_dataset(folder), narrator)
    return list(folders)


def _phantoms(settings: Settings, options: DemoOptions) -> dict[str, Path]:
    data = options.directory / "data"
    found = {}
    for kind in PHANTOMS:
        write_phantom_plugin(kind, settings.plugins_dir)
        found[kind] = write_phantom(kind, data, PHANTOM_CASES, options.seed)
    return found


def _real(settings: Settings, data: Path) -> dict[str, Path]:
    """The data sets of a folder, each with the plugin that is made for it, or a new one."""
    if not data.is_dir():
        raise MissingFile(f"{data} does not exist", "Give a folder of MSD or nnU-Net folders.")
    plugins = [found.plugin for found in discover(settings) if found.plugin]
    # A bundled plugin names the folder behind the collection: "..., Task02_Heart".
    known = {plugin.spec.data.dataset.rpartition(", ")[2]: plugin.name for plugin in plugins}
    taken = {plugin.name for plugin in plugins}
    found = {}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        dataset = _usable(folder)
        if dataset is None:
            continue
        name = known.get(folder.name)
        if name is None:
            name = folder.name.partition("_")[2].lower()
            if not name or name in taken:
                name = folder.name.lower()
            taken.add(name)
            write_plugin(name, dataset, settings.plugins_dir)
        found[name] = folder
    if len(found) < 2:
        raise MissingFile(
            f"{data} holds {len(found)} data sets with {FEWEST_CASES} labelled cases or more",
            "Give a folder that holds at least two, as Task02_Heart and Task04_Hippocampus.",
        )
    return found


def _usable(folder: Path) -> Dataset | None:
    try:
        dataset = open_dataset(folder)
    except DataError:
        return None
    labelled = sum(case.label is not None for case in dataset.training)
    return dataset if labelled >= FEWEST_CASES else None


def _check(plugin: DomainPlugin, dataset: Dataset, narrator: Narrator) -> None:
    found = check_dataset(plugin, dataset, narrator.on_case)
    errors = [one for one in found if one.severity == "error"]
    if errors:
        listing = "\n".join(f"  {one.case_id}: {one.fault.message}" for one in errors)
        raise InvalidCases(
            f"{len(errors)} errors in the cases of {plugin.name}:\n{listing}",
            "Correct them, or take them out of the data set.",
        )


def _train(
    settings: Settings,
    names: Sequence[str],
    base: str | None,
    options: DemoOptions,
    narrator: Narrator,
) -> Finished:
    share = NEW_DOMAIN_SHARE if base else 1 - NEW_DOMAIN_SHARE
    minutes = round(options.minutes * share, 2)
    what = f"adapt {names[0]} --from {base}" if base else f"train {' '.join(names)}"
    batch_voxels = 2**17 if options.data is None else None  # phantoms are small
    narrator.say(
        f"u2net {what} --minutes {minutes:g}"
        + (f" --batch-voxels {batch_voxels}" if batch_voxels else "")
    )
    request = Request(
        domains=tuple(names),
        recipe=Recipe.load("default", batch_voxels=batch_voxels),
        base=base,
        seed=options.seed,
        device=options.device,
        minutes=minutes,
    )
    return start(settings, request, narrator, narrator.on_prepare)


def _stored(settings: Settings, versions: Sequence[VersionRecord]) -> dict[str, bytes]:
    """The bytes of every weight file of these versions."""
    digests = {d for one in versions for d in (one.backbone_digest, one.domain_digest)}
    return {
        digest: (settings.weights_dir / f"{digest}.safetensors").read_bytes() for digest in digests
    }


def _evaluate(catalog: Catalog, loaded: LoadedVersion, narrator: Narrator) -> DomainResult:
    record = loaded.record
    narrator.say(f"u2net evaluate {record.reference}")
    cases = cases_of(catalog, record, "test")
    report: Report = evaluate_cases(Labeller.of(loaded), cases, narrator.on_case)
    mean = report.mean()
    keep_scores(catalog, record, report)
    return DomainResult(
        record.reference,
        mean.overall.dice or 0.0,
        _constant_dice(loaded.plugin, cases),
        mean.overall.hd95_mm,
        mean.cases,
        mean.failures,
    )


def _constant_dice(plugin: DomainPlugin, cases: Sequence[Case]) -> float:
    """Mean Dice over classes and cases of the best answer that no image has a say in."""
    classes = plugin.spec.classes
    scores = np.zeros(classes)
    for case in cases:
        _, reference = load_case(plugin, case)
        assert reference is not None  # test cases are labelled
        for answer in range(1, classes):
            constant = np.full_like(reference.array, answer)
            found = dice_by_class(reference.array, constant, classes)
            scores[answer] += float(np.mean(list(found.values()))) / len(cases)
    return float(scores.max())


def _predict(
    settings: Settings,
    catalog: Catalog,
    version: VersionRecord,
    output: Path,
    device: str,
    narrator: Narrator,
) -> None:
    folder = data_dir_of(version.domain, catalog, None) / "imagesTs"
    if not folder.is_dir():
        first = cases_of(catalog, version, "test")[0].images[0]
        folder, output = first, output / first.name
    output.parent.mkdir(parents=True, exist_ok=True)
    narrator.say(f"u2net predict --domain {version.reference} -i {folder} -o {output}")
    loaded = load_predictor(settings, version.reference, choose_device(device))
    labellers = [Labeller.of(loaded)]
    results = predict_paths(labellers, folder, output, narrator.on_case)
    failure = failure_of(results)
    if failure is not None:
        raise failure


def _curves(trained: Finished, adapted: Finished) -> Mapping[str, Sequence[tuple[int, float]]]:
    return {**trained.curves, **adapted.curves}
