"""From a data set's folder to a plan and cases that training can read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from u2net_platform.data.dataset import Case, open_dataset
from u2net_platform.data.integrity import digest_of_case, files_of
from u2net_platform.data.plan import Fingerprint, Plan, derive_plan, take_fingerprint
from u2net_platform.data.splits import Split, Splitter
from u2net_platform.data.store import PreparedStore, TrainingDomain, prepare_cases
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import TooFewCases
from u2net_platform.files import keep_digests, recall_digests, write_text

OnCase = Callable[[str], None]

DIGESTS_FILE = "digests.json"  # of the data set's files, as they were when they were last read


@dataclass(frozen=True)
class PlannedDomain:
    """A domain's cases by their part of a fold, and the plan that training and validation give."""

    plugin: DomainPlugin
    fingerprint: Fingerprint
    plan: Plan
    split: Split
    training: Sequence[Case]
    validation: Sequence[Case]


@dataclass(frozen=True)
class PreparedDomain(TrainingDomain):
    """A domain for one fold, with where its cases come from; those of the test are not there."""

    fingerprint: Fingerprint
    split: Split


def plan_domain(
    root: Path,
    plugin: DomainPlugin,
    data_dir: Path,
    split: Splitter,
    batch_voxels: int,
    on_case: OnCase,
) -> PlannedDomain:
    """Take a data set's fingerprint, kept below `root`, and derive the domain's plan.

    The plan never looks at test cases: for CT it holds their statistics.

    Raises:
        MissingFile, InvalidDataset, InvalidCases, TooFewCases: the data set is at fault.
    """
    dataset = open_dataset(data_dir)
    cases = {case.id: case for case in dataset.training if case.label is not None}
    if not cases:
        raise TooFewCases(f"{data_dir} has no labelled case", "Add labels to its cases.")
    parts = split(list(cases), plugin.spec.subject_of)
    training, validation = (
        [cases[name] for name in part] for part in (parts.training, parts.validation)
    )
    fingerprint = _fingerprint(root, plugin, training + validation, on_case)
    plan = derive_plan(plugin.spec, fingerprint, batch_voxels)
    return PlannedDomain(plugin, fingerprint, plan, parts, training, validation)


def prepare_domain(
    root: Path,
    plugin: DomainPlugin,
    data_dir: Path,
    split: Splitter,
    batch_voxels: int,
    on_case: OnCase,
    plan: Plan | None = None,
) -> PreparedDomain:
    """Plan a domain and prepare its cases below `root`; what is there already is kept.

    plan: in place of the one that the cases give, as where several sites share a domain.

    Raises:
        MissingFile, InvalidDataset, InvalidCases, TooFewCases: the data set is at fault.
        NotWritable, DiskFull: nothing half-written stays.
    """
    planned = plan_domain(root, plugin, data_dir, split, batch_voxels, on_case)
    cases = [*planned.training, *planned.validation]
    plan = plan or planned.plan
    ready = prepare_cases(PreparedStore(root), plugin, plan, cases, on_case)
    count = len(planned.training)
    return PreparedDomain(
        plugin, plan, ready[:count], ready[count:], planned.fingerprint, planned.split
    )


def fingerprints_of(
    domains: Mapping[str, PlannedDomain | PreparedDomain],
) -> dict[str, dict[str, object]]:
    """Of each domain: its data in numbers, and which case was used for what."""
    return {
        name: one.fingerprint.model_dump(mode="json")
        | {"split": {part: list(ids) for part, ids in vars(one.split).items()}}
        for name, one in domains.items()
    }


def _fingerprint(
    root: Path, plugin: DomainPlugin, cases: Sequence[Case], on_case: OnCase
) -> Fingerprint:
    """Taken once for the same files and plugin, then read."""
    digests, memory = [], root / plugin.name / DIGESTS_FILE
    recall_digests(memory)
    try:
        for case in cases:  # new files are read whole, which may take long over a network
            digests.append(digest_of_case(case))
            on_case(case.id)
    finally:
        keep_digests((path for case in cases for path in files_of(case)), memory)
    parts = [plugin.preparation_digest, *sorted(digests)]
    key = hashlib.sha256("".join(parts).encode()).hexdigest()
    file = root / plugin.name / f"fingerprint-{key}.json"
    try:
        return Fingerprint.model_validate_json(file.read_text("utf-8"))
    except (FileNotFoundError, ValidationError):
        fingerprint = take_fingerprint(plugin, cases, on_case)
        write_text(file, fingerprint.model_dump_json(indent=2))
        return fingerprint
