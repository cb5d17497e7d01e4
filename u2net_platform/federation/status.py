"""Where a federated run is, as the catalog has it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RoundRecord, Status
from u2net_platform.errors import NothingToResume, UnknownRecord
from u2net_platform.federation.request import REQUEST_FILE, request_of
from u2net_platform.settings import Settings
from u2net_platform.workflows.request import is_abandoned


@dataclass(frozen=True)
class RunStatus:
    """round: the last one that is completed."""

    run: str
    status: Status | Literal["waiting for sites"]
    round: int
    rounds_wanted: int
    rounds: tuple[RoundRecord, ...]
    ended_at: datetime | None


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
    return RunStatus(run_id, status, done, request.rounds, tuple(rounds), ended_at)


def _latest(settings: Settings) -> str:
    # The ids begin with the time.
    found = sorted(file.parent.name for file in settings.runs_dir.glob(f"*/{REQUEST_FILE}"))
    if not found:
        raise NothingToResume("There is no federated run yet", "Start one: u2net federate run")
    return found[-1]
