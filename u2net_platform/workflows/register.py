"""Versions in MLflow's registry, as the catalog has them.

Nothing notes what is still to be registered: each time, both sides are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.errors import CatalogUnreachable, U2NetError
from u2net_platform.files import exclusive, is_held
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import TrackingDown
from u2net_platform.tracking.outbox import SYNC_HINT
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
) -> Registration:
    """Register the versions of domains that are not, and bring scores and aliases up to date.

    on_done: takes each version once it is looked at.
    sheet: makes a PNG for a version of this reference. They show patients, so none is made unasked.

    Raises:
        TrackingDown: the server does not answer; what was done stays.
        CatalogUnreachable: the store refuses.
    """
    catalog, done = Catalog.open(settings.database_url), Registration()
    # Two processes that look at the same moment would both register what they miss: one waits.
    with exclusive(settings.home / LOCK, wait=True):
        registry = Registry(settings)
        for domain in domains:
            known = registry.versions(domain)
            for record in sorted(catalog.versions.list(domain), key=lambda one: one.number):
                if _is_at_work(settings, catalog, record.run_id):
                    continue  # which registers its versions itself, in a moment
                entry = _entry(catalog, record, pictures=sheet is not None)
                there = known.get(record.reference)
                if there is None or registry.lacks(entry, there):
                    _send(settings, registry, record, entry, there, done, sheet)
                on_done(record.reference)
            _set_aliases(registry, catalog, domain, done)
    return done


def _is_at_work(settings: Settings, catalog: Catalog, run_id: str) -> bool:
    running = catalog.runs.get(run_id).status == "running"
    return running and is_held(settings.runs_dir / run_id / LOCK_FILE)


def keep_registered(
    settings: Settings, domains: Iterable[str], on_note: Callable[[str], None]
) -> None:
    """As `register`, after a change that is done already: what MLflow refuses is said, no more."""
    try:
        done = register(settings, domains)
    except U2NetError as error:
        on_note(f"MLflow's registry is behind: {error.message}. {SYNC_HINT}")
        return
    for name, reason in done.failed.items():
        on_note(f"MLflow's registry lacks {name}: {reason}")


def _send(
    settings: Settings,
    registry: Registry,
    record: VersionRecord,
    entry: Entry,
    there: Registered | None,
    done: Registration,
    sheet: Sheet | None,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "version"
        data.mkdir()
        try:
            _write_data(settings, record, data, sheet(record.reference) if sheet else None)
        except U2NetError as error:  # weights are gone or altered, or no data for pictures
            done.failed[record.reference] = error.message
            return
        if there is not None:
            registry.update(entry, there, data)
            done.updated.append(record.reference)
            return
        made = registry.register(entry, LOADER, data)
    done.registered[record.reference] = f"{model_name(record.domain)}/{made.number}"


def _write_data(
    settings: Settings, record: VersionRecord, data: Path, pictures: bytes | None
) -> None:
    """The bundle, and beside it what a person may want to look at in MLflow."""
    bundle = export_bundle(settings, record, data / BUNDLE_FILE, pictures=pictures)
    members = read_bundle(bundle).members
    for name in SHOWN:
        if name in members:
            (data / name).write_bytes(members[name])


def _set_aliases(registry: Registry, catalog: Catalog, domain: str, done: Registration) -> None:
    for one in catalog.deployments.last_changes(domain):
        alias = Alias(domain, one.slot.alias, one.slot.site, one.version)
        name = f"{model_name(domain)}@{alias.name}"
        try:
            done.aliases += [name] if registry.set_alias(alias) else []
        except TrackingDown:
            raise
        except CatalogUnreachable as error:
            done.failed[name] = error.message


def _entry(catalog: Catalog, record: VersionRecord, pictures: bool) -> Entry:
    # As in a bundle: scores on other data are of who has those.
    known = Metrics.model_fields.keys() - {"bundle"}
    scores = {key: one for key, one in record.metrics.items() if key in known}
    metrics = dict(_numbers(scores))
    return Entry(
        domain=record.domain,
        number=record.number,
        run=record.run_id,
        mlflow_run_id=catalog.runs.get(record.run_id).mlflow_run_id,
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
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
