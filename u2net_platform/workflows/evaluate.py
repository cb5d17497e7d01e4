"""Score a predictor on cases with known labels; what fails is part of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord, scores_key
from u2net_platform.data.dataset import Case, open_dataset
from u2net_platform.data.integrity import digest_of_case, load_case
from u2net_platform.data.store import PreparedStore
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import Conflict, DataError, InvalidDataset, MissingFile, NotWritable
from u2net_platform.evaluation.metrics import ClassScores, dice_by_class, score_case
from u2net_platform.evaluation.pictures import SheetRow
from u2net_platform.evaluation.report import CaseResult, Report
from u2net_platform.imaging.volume import (
    ImageVolume,
    LabelVolume,
    legend_of,
    read_labels,
    turned_back,
)
from u2net_platform.settings import Settings
from u2net_platform.workflows.add_domain import data_dir_of
from u2net_platform.workflows.labeller import Labelled, Labeller, Scan, require_free
from u2net_platform.workflows.learned_cases import learned_cases
from u2net_platform.workflows.predict import in_folder, named
from u2net_platform.workflows.versions import LoadedVersion, load_predictor

Part = Literal["test", "validation", "training", "all"]


def cases_of(
    catalog: Catalog, record: VersionRecord, part: Part, directory: Path | None = None
) -> list[Case]:
    """The labelled cases of one part of the split that a version was trained with.

    `directory` holds the data set; where the catalog says that it lies, if None.

    Raises:
        MissingFile, InvalidDataset: there is no such data set, no case in that part of it, or one
            of them is gone.
    """
    dataset = open_dataset(data_dir_of(record.domain, catalog, directory))
    names = [case.id for case in dataset.training]
    if part != "all":
        # As the run noted it: a split made anew would move once cases join the data set.
        noted = catalog.runs.get(record.run_id).fingerprints.get(record.domain, {})
        names = noted.get("split", {}).get(part, [])
        if gone := sorted({*names} - {case.id for case in dataset.training if case.label}):
            raise InvalidDataset(
                f"{len(gone)} of {len(names)} {part} cases of {record.reference} are not, or not"
                f" labelled, in {dataset.directory}: {', '.join(gone)}",
                "Put them back; without them its scores would be of other cases than they say.",
            )
    cases = [case for case in dataset.training if case.label and case.id in names]
    if not cases:
        raise InvalidDataset(
            f"{dataset.directory} has no labelled {part} case for {record.reference}",
            "Choose another part with --cases; all of another data set: --cases all --data FOLDER.",
        )
    return cases


def require_other_data(
    settings: Settings, catalog: Catalog, loaded: LoadedVersion, cases: Sequence[Case]
) -> str | None:
    """What to make sure of, where cases of another data set may be some that a version was made
    with: their names are known, or nobody knows the cases of a version that came in a bundle.
    Watched ones count: they shape its plan, and what is cleaned.

    Raises:
        InvalidDataset: some are the very files that it was made with.
    """
    record, subject_of = loaded.record, loaded.plugin.spec.subject_of
    names = learned_cases(catalog, [record], ("training", "validation"))[record.domain]
    subjects = {subject_of(name) for name in names}
    alike = [case for case in cases if subject_of(case.id) in subjects]
    prepared, own = PreparedStore(settings.prepared_dir), _digests(catalog, record.domain, alike)
    for case in alike:
        if case.id in names and (
            own.get(case.id) == digest_of_case(case)
            or prepared.find(loaded.plugin, loaded.plan, case)
        ):
            raise InvalidDataset(
                f"{record.reference} has learned from or watched {case.id}, as {case.images[0]}"
                " has it",
                "Name a data set that it has never seen; its test cases are scored without --data.",
            )
    if not names:
        return f"{record.reference} does not say which cases it has learned from; are these others?"
    return (
        f"{len(alike)} cases have names of patients that it has learned from or watched; are they"
        " others?"
        if alike
        else None
    )


def _digests(catalog: Catalog, domain: str, alike: Sequence[Case]) -> dict[str, str]:
    """Of cases of the domain's own data that have these names, where they still are."""
    names = {case.id for case in alike}
    found: dict[str, str] = {}
    with suppress(DataError):  # nothing says where they lie, or they are gone
        for case in open_dataset(data_dir_of(domain, catalog, None)).training:
            if case.id in names:
                found[case.id] = digest_of_case(case)
    return found


def require_apart(parts: Sequence[tuple[LoadedVersion, Sequence[Case]]]) -> None:
    """Versions and the cases of each can be scored as one: cross-validation, where they are the
    test cases of other folds.

    Raises:
        Conflict: they have other classes, or a case is there twice.
    """
    first = parts[0][0]
    seen: dict[str, str] = {}
    for loaded, cases in parts:
        reference, spec = loaded.record.reference, loaded.plugin.spec
        if (spec.name, spec.class_names) != (first.plugin.spec.name, first.plugin.spec.class_names):
            raise Conflict(
                f"{first.record.reference} and {reference} label other things, and have no mean",
                "Evaluate one at a time.",
            )
        for case in cases:
            if case.id in seen:
                raise Conflict(
                    f"{case.id} is a case of both {seen[case.id]} and {reference}, and would count"
                    " twice",
                    "Name versions of different folds; evaluate others one at a time.",
                )
            seen[case.id] = reference


def evaluate_test(
    settings: Settings, reference: str, device: torch.device, on_case: Callable[[str], None]
) -> VersionRecord:
    """Score a version on all its test cases, and keep the means with it in the catalog.

    Raises:
        U2NetError: as `load_predictor` and `cases_of`.
    """
    catalog = Catalog.open(settings.database_url)
    loaded = load_predictor(settings, reference, device)
    cases = cases_of(catalog, loaded.record, "test")
    report = evaluate_cases(Labeller.of(loaded), cases, on_case)
    return keep_scores(catalog, loaded.record, report)


def keep_scores(
    catalog: Catalog, record: VersionRecord, report: Report, on: str | None = None
) -> VersionRecord:
    """Add the means of all test cases, or of another data set of a name, to a version's metrics."""
    metrics = {scores_key(on): report.mean().model_dump(mode="json")}
    return catalog.versions.add_metrics(record.domain, record.number, metrics)


def evaluate_cases(
    labeller: Labeller,
    cases: Sequence[Case],
    on_case: Callable[[str], None],
    folder: Path | None = None,
) -> Report:
    """Predict and score every case on the voxels of its own image.

    A case that fails, for whatever reason, is recorded with its error and the others go on.
    `on_case` gets the id of each case done; `folder` gets what was predicted, as `predict` writes
    it.

    Raises:
        NotWritable, DiskFull: the folder has labels of such a case already, or cannot be written.
    """
    plugin = labeller.predictor.plugin
    targets = {} if folder is None else new_files(folder, cases)
    results = []
    for case in cases:
        try:
            found, scores = _score(labeller, case)
        except Exception as error:  # memory may run out, a library may raise anything
            results.append(CaseResult(case_id=case.id, scores=None, error=named(error)))
        else:
            results.append(CaseResult(case_id=case.id, scores=scores))
            if targets:
                labeller.write(targets[case.id], _as_filed(found, case), like=case.label)
        on_case(case.id)
    return Report(
        domain=plugin.name,
        version=labeller.version,
        classes=plugin.spec.class_names,
        cases=tuple(results),
    )


def new_files(folder: Path, cases: Sequence[Case]) -> dict[str, Path]:
    """A label file for each case, in a folder that is made if need be.

    Raises:
        NotWritable, DiskFull: one is there already, or the folder cannot be made.
    """
    targets = in_folder(cases, folder)
    for case in cases:
        for file in (targets[case.id], legend_of(targets[case.id])):
            require_free(file, case.images, "replace")
            if file.exists():
                raise NotWritable(
                    f"{file} exists already", "Name another folder, or remove what is in it."
                )
    return targets


def _as_filed(found: Labelled, case: Case) -> Labelled:
    """Canonical labels in the orientation of the case's own files."""
    assert case.label is not None  # without it there is no score
    grid = read_labels(case.label).grid
    return replace(found, labels=LabelVolume(turned_back(found.labels.array, grid), grid))


def _score(labeller: Labeller, case: Case) -> tuple[Labelled, dict[str, ClassScores]]:
    plugin = labeller.predictor.plugin
    image, reference = _load(plugin, case)
    prepared = labeller.predictor.prepare_clean(image)
    found = labeller.label(Scan(image, case.images), prepared=prepared)
    return found, score_case(
        reference.array,
        found.labels.array,
        plugin.spec.class_names,
        reference.grid.spacing_zyx_mm,
        plugin.spec.evaluation.surface_tolerance_mm,
        plugin.spec.hidden_classes(case.id),
    )


def _load(plugin: DomainPlugin, case: Case) -> tuple[ImageVolume, LabelVolume]:
    if case.label is None:
        raise MissingFile(f"case {case.id} has no label", "Leave it out, or add its label file.")
    # Nothing to learn from, but an organ may well be absent from a test case.
    lenient = replace(plugin, spec=plugin.spec.model_copy(update={"empty_labels": True}))
    image, reference = load_case(lenient, case)
    assert reference is not None  # of a case with a label
    return image, reference


def sheet_rows(cases: Sequence[tuple[LoadedVersion, Case]]) -> list[SheetRow]:
    """Labelled cases with what a version predicts of each, for a sheet of pictures.

    Raises:
        DataError: a case cannot be read.
    """
    rows = []
    for loaded, case in cases:
        image, reference = _load(loaded.plugin, case)
        predicted = loaded.predictor.predict_clean(image, reference.grid)
        spec, names = loaded.plugin.spec, loaded.plugin.spec.class_names
        hidden = spec.hidden_classes(case.id)
        dice = dice_by_class(reference.array, predicted.array, spec.classes, hidden)
        scores = ", ".join(f"{names[value - 1]} {score:.2f}" for value, score in dice.items())
        rows.append(
            SheetRow(
                f"{loaded.record.reference}, {case.id}: Dice {scores}",
                names,
                image.array[0],
                reference.array,
                predicted.array,
                reference.grid.spacing_zyx_mm,
            )
        )
    return rows
