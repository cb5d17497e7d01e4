"""Runs: who was trained together, how, on what data, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from u2net_platform.catalog.database import Database
from u2net_platform.catalog.domains import find_domain
from u2net_platform.catalog.records import EVERYTHING, Page, RunRecord, Status
from u2net_platform.catalog.tables import RunBaseRow, RunDomainRow, RunRow, VersionRow, now
from u2net_platform.catalog.versions import find_version
from u2net_platform.errors import Conflict, UnknownRecord

SAME_IN_ROW = RunRecord.model_fields.keys() - {"domains", "fingerprints", "base_version", "starts"}


class Runs:
    """Queries about runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, run: RunRecord) -> RunRecord:
        """Store a new run.

        Raises:
            Conflict: there is a run of this id.
            UnknownDomain, UnknownRecord: a domain, or a version that it started from, is not in the
                catalog.
        """

        def work(session: Session) -> RunRecord:
            if session.get(RunRow, run.id) is not None:
                raise Conflict(f"Run {run.id} exists already", "Resume it, or name another.")
            return run_record(add_run(session, run))

        return self._database.write(work)

    def update(self, run_id: str, status: Status, step: int) -> RunRecord:
        """Note how far a run is. One that no longer runs has ended now; a resumed one has not.

        Raises:
            UnknownRecord
        """

        def work(session: Session) -> RunRecord:
            row = _find(session, run_id)
            row.status, row.step = status, step
            row.ended_at = None if status == "running" else now()
            return run_record(row)

        return self._database.write(work)

    def get(self, run_id: str) -> RunRecord:
        """Raises UnknownRecord."""
        return self._database.read(lambda session: run_record(_find(session, run_id)))

    def ids(self) -> set[str]:
        """Those of all runs."""
        return self._database.read(lambda session: set(session.scalars(select(RunRow.id))))

    def list(self, page: Page = EVERYTHING) -> list[RunRecord]:
        """All runs, the latest first."""
        rows = select(RunRow).order_by(RunRow.started_at.desc(), RunRow.id)
        rows = rows.limit(page.limit).offset(page.offset)
        return self._database.read(
            lambda session: [run_record(row) for row in session.scalars(rows)]
        )


def _find(session: Session, run_id: str) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None:
        raise UnknownRecord(
            f"Run {run_id} is not in the catalog",
            "See which there are: u2net catalog query runs",
        )
    return row


def add_run(session: Session, run: RunRecord) -> RunRow:
    """Raises UnknownDomain, UnknownRecord."""
    columns = run.model_dump(include=set(SAME_IN_ROW))
    for name in ("started_at", "ended_at"):
        columns[name] = columns[name] and columns[name].isoformat(timespec="microseconds")
    row = RunRow(**columns)
    row.members = members_of(session, run, run.domains)
    if base := _find_version(session, run.base_version):
        row.base = RunBaseRow(version=base)
    session.add(row)
    session.flush()
    return row


def members_of(session: Session, run: RunRecord, names: Iterable[str]) -> list[RunDomainRow]:
    """Some of a run's domains, in their places among all. Raises as `add_run`."""
    return [
        RunDomainRow(
            domain=find_domain(session, name).name,
            position=run.domains.index(name),
            fingerprint=run.fingerprints.get(name),
            data_digest=run.fingerprints.get(name, {}).get("data_digest"),
            start=_find_version(session, run.starts.get(name)),
        )
        for name in names
    ]


def _find_version(session: Session, reference: str | None) -> VersionRow | None:
    if reference is None:
        return None
    domain, _, number = reference.partition(":")
    return find_version(session, domain, int(number))


def run_record(row: RunRow) -> RunRecord:
    return RunRecord(
        **{name: getattr(row, name) for name in SAME_IN_ROW},
        domains=tuple(member.domain for member in row.members),
        fingerprints={m.domain: m.fingerprint for m in row.members if m.fingerprint is not None},
        base_version=_reference(row.base.version) if row.base else None,
        starts={m.domain: _reference(m.start) for m in row.members if m.start is not None},
    )


def _reference(version: VersionRow) -> str:
    return f"{version.domain}:{version.number}"
