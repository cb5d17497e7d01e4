"""Where a federated run is, as the catalog has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RoundRecord, Status
from u2net_platform.errors import NothingToResume, UnknownRecord
from u2net_platform.federation.request import REQUEST_FILE, request_of
from u2net_platform.files import write_text
from u2net_platform.settings import Settings
from u2net_platform.workflows.request import is_abandoned

if TYPE_CHECKING:
    from u2net_platform.federation.messages import Published

NOTES_FILE = "notes.txt"
PUBLISHED_FILE = "published.json"


@dataclass(frozen=True)
class RunStatus:
    """round: the last one that is completed.

    notes: what the coordinator has said. at_sites: versions and their Dice, by site, that sites
    have published. unpublished: sites that have taken part and have published nothing. All three
    are empty where the run was not Flower's.
    """

    run: str
    status: Status | Literal["waiting for sites"]
    round: int
    rounds_wanted: int
    rounds: tuple[RoundRecord, ...]
    ended_at: datetime | None
    notes: tuple[str, ...] = ()
    at_sites: Mapping[str, Any] = field(default_factory=dict)
    unpublished: tuple[str, ...] = ()


def read_status(settings: Settings, run_id: str | None) -> RunStatus:
    """A run's rounds; the latest run's where none is named.

    Raises:
        NothingToResume: there is no such run.
    """
    run_id = run_id or _latest(settings)
    request = request_of(settings, run_id)
    catalog = Catalog.open(settings.database_url)
    rounds = catalog.federations.rounds(run_id)
    status: Status | Literal["waiting for sites"] = "waiting for sites"
    ended_at = None
    with suppress(UnknownRecord):
        run = catalog.runs.get(run_id)
        status, ended_at = run.status, run.ended_at
    # A coordinator that was killed, or stopped by Flower, says nothing any more; nor does one that
    # ended before it had a row. One that Flower has still to start has no lock.
    if status in ("running", "waiting for sites") and is_abandoned(settings, run_id):
        status = "interrupted"
    done = max((one.number for one in rounds if one.status == "completed"), default=0)
    directory = settings.runs_dir / run_id
    at_sites = _published(directory)
    took_part = {
        sent.site
        for one in rounds
        if one.status == "completed"
        for sent in one.contributions
        if sent.accepted
    }
    missing = took_part - at_sites.keys() if status == "completed" and at_sites is not None else ()
    return RunStatus(
        run_id,
        status,
        done,
        request.rounds,
        tuple(rounds),
        ended_at,
        _notes(directory),
        at_sites or {},
        tuple(sorted(missing)),
    )


def keep_published(directory: Path, at_sites: Mapping[str, Published]) -> None:
    """Write down in a run's folder what sites have published, beside what they had before.

    Raises:
        DiskFull, NotWritable: it cannot be written.
    """
    found = (_published(directory) or {}) | {
        site: one.model_dump(mode="json") for site, one in at_sites.items()
    }
    write_text(directory / PUBLISHED_FILE, json.dumps(found, indent=2))


def _published(directory: Path) -> dict[str, Any] | None:
    """None where nobody has noted it."""
    try:
        found: dict[str, Any] = json.loads((directory / PUBLISHED_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    return found


def _notes(directory: Path) -> tuple[str, ...]:
    try:
        return tuple((directory / NOTES_FILE).read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ()


def _latest(settings: Settings) -> str:
    # The ids begin with the time.
    found = sorted(file.parent.name for file in settings.runs_dir.glob(f"*/{REQUEST_FILE}"))
    if not found:
        raise NothingToResume(
            "There is no federated run yet",
            "Start one: u2net federate run; with sites on other machines: u2net federation run",
        )
    return found[-1]
