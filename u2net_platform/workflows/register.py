"""Versions in MLflow's registry, as the catalog has them.

Nothing notes what is still to be registered: each time, both sides are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord, VersionRecord
from u2net_platform.errors import U2NetError
from u2net_platform.files import exclusive, is_held
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import REFUSED_IN_NAMES, TrackingDown
from u2net_platform.tracking.registry import Alias, Entry, Registered, Registry, model_name
from u2net_platform.workflows.bundle import export_bundle
from u2net_platform.workflows.bundle_file import read_bundle
from u2net_platform.workflows.bundle_parts import Metrics
from u2net_platform.workflows.registered_model import BUNDLE_FILE
from u2net_platform.workflows.request import LOCK_FILE

LOADER = "u2net_platform.workflows.registered_model"
LOCK = "registry.lock"
PICTURES_TAG = "u2net.pictures"
SHOWN = ("spec.json", "plan.json", "metrics.json", "README.md", "pictures.png")

Sheet = Callable[[str], bytes]


@dataclass
class Registration:
    """What MLflow was told.

    registered: by reference, as `u2net-heart/3`. updated: whose scores or pictures are new.
    aliases: now set, or taken away. failed: what could not be registered or set, and why.
    """

    registered: dict[str, str] = field(default_factory=dict)
    updated: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def register(
    settings: Settings,
    domains: Iterable[str],
    on_done: Callable[[str], None] = lambda _: None,
    sheet: Sheet | None = None,
    wait: bool = True,
) -> Registration:
    """Register the versions of domains that are not, and bring scores and aliases up to date.

    on_done: takes each version once it is looked at.
    sheet: makes a PNG for a version of this reference. They show patients, so none is made unasked.
    wait: for another process that registers versions.

    Raises:
        RunBusy: there is one, and it is not to be waited for.
        TrackingDown: the server does not answer; what was done stays.
        CatalogUnreachable: the store refuses.
    """
    catalog, done = Catalog.open(settings.database_url), Registration()
    # Two processes that look at the same moment would both register what they miss.
    with exclusive(settings.home / LOCK, wait):
        work = _Work(settings, catalog, Registry(settings), sheet, done)
        for domain in domains:
            work.register(domain, on_done)
    return done


def keep_registered(
    settings: Settings, domains: Iterable[str], on_note: Callable[[str], None]
) -> None:
    """As `register`, after a change that is done already: a fault is said, no more, and nobody is
    waited for, as another may send pictures for an hour."""
    try:
        done = register(settings, domains, wait=False)
    except Exception as error:  # a library of MLflow's may raise anything, and the change is made
        reason = error.message if isinstance(error, U2NetError) else repr(error)
        on_note(f"MLflow's registry is behind: {reason}. Later: u2net model sync")
        return
    for name, reason in done.failed.items():
        on_note(f"MLflow's registry lacks {name}: {reason}")


@dataclass(frozen=True)
class _Work:
    settings: Settings
    catalog: Catalog
    registry: Registry
    sheet: Sheet | None
    done: Registration

    def register(self, domain: str, on_done: Callable[[str], None]) -> None:
        known, entries = self.registry.versions(domain), []
        for record in self.catalog.versions.list(domain):
            run = self.catalog.runs.get(record.run_id)
            entries.append((record, run, _entry(record, run, pictures=self.sheet is not None)))
        if theirs := [one.reference for *_, one in entries if self.registry.is_other(one, known)]:
            self.done.failed[model_name(domain)] = (
                f"MLflow has {theirs[0]} of another catalog. Give each catalog a U2NET_TRACKING_URI"
                f" of its own; or delete the model in MLflow, if that catalog is no more"
            )
            return
        for record, run, entry in entries:
            if _is_at_work(self.settings, run):
                continue  # which registers its versions itself, in a moment
            there = known.get(record.reference)
            if there is None or self.registry.lacks(entry, there):
                with self._noting_fault(record.reference):
                    self._send(record, entry, known)
            on_done(record.reference)
        self._set_aliases(domain, known)

    def _send(self, record: VersionRecord, entry: Entry, known: dict[str, Registered]) -> None:
        name = record.reference
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary) / "version"
            data.mkdir()
            _write_data(self.settings, record, data, self.sheet and self.sheet(name))
            if (there := known.get(name)) is not None:
                if self.sheet is None and PICTURES_TAG in there.tags:  # the new bundle has none
                    entry = replace(entry, tags={**entry.tags, PICTURES_TAG: "no"})
                self.registry.update(entry, there, data)
                self.done.updated.append(name)
                return
            known[name] = made = self.registry.register(entry, LOADER, data)
        self.done.registered[name] = f"{model_name(entry.domain)}/{made.number}"

    def _set_aliases(self, domain: str, known: Mapping[str, Registered]) -> None:
        for one in self.catalog.deployments.last_changes(domain):
            if not known or (one.version and one.version not in known):
                continue  # whoever registers it sets its aliases
            number = known[one.version].number if one.version else None
            alias = Alias(domain, one.slot.alias, one.slot.site, number)
            name = f"{model_name(domain)}@{alias.name}"
            with self._noting_fault(name):
                self.done.aliases += [name] if self.registry.set_alias(alias) else []

    @contextmanager
    def _noting_fault(self, name: str) -> Iterator[None]:
        """What is refused, weights that are gone, or no data for pictures, keep no other back."""
        try:
            yield
        except TrackingDown:
            raise
        except U2NetError as error:
            self.done.failed[name] = error.message


def _is_at_work(settings: Settings, run: RunRecord) -> bool:
    return run.status == "running" and is_held(settings.runs_dir / run.id / LOCK_FILE)


def _write_data(
    settings: Settings, record: VersionRecord, data: Path, pictures: bytes | None
) -> None:
    """The bundle, and beside it what a person may want to look at in MLflow."""
    bundle = export_bundle(settings, record, data / BUNDLE_FILE, pictures=pictures)
    members = read_bundle(bundle).members
    for name in SHOWN:
        if name in members:
            (data / name).write_bytes(members[name])


def _entry(record: VersionRecord, run: RunRecord, pictures: bool) -> Entry:
    # As in a bundle: scores on other data are of who has those.
    known = Metrics.model_fields.keys() - {"bundle"}
    scores = {key: one for key, one in record.metrics.items() if key in known}
    metrics = dict(_numbers(scores))
    return Entry(
        domain=record.domain,
        number=record.number,
        run=record.run_id,
        mlflow_run_id=run.mlflow_run_id,
        tags={
            "u2net.run": record.run_id,
            "u2net.backbone": record.backbone_digest,
            "u2net.domain_digest": record.domain_digest,
            "u2net.spec": record.spec_digest,
            "u2net.plan": record.plan_digest,
            "u2net.plugin": record.plugin_digest,
        }
        | ({PICTURES_TAG: "yes"} if pictures else {})
        | {f"u2net.{key.replace('/', '.')}": f"{value:.6g}" for key, value in metrics.items()},
        metrics=metrics,
    )


def _numbers(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested scores, by path: `test/classes/left atrium/dice`."""
    for key, value in content.items():
        path = f"{prefix}{REFUSED_IN_NAMES.sub('_', key)}"
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}/")
        elif isinstance(value, int | float):
            yield path, float(value)
