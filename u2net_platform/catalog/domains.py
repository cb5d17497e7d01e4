"""Domains in the catalog."""

from __future__ import annotations

import difflib
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from u2net_platform.catalog.contents import stored
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.records import DomainRecord
from u2net_platform.catalog.tables import DomainRow, RunDomainRow, SpecRow, VersionRow
from u2net_platform.errors import Conflict, UnknownDomain


class Domains:
    """Queries about domains."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        spec_json: dict[str, Any],
        name: str,
        plugin_digest: str,
        source: str,
        data_dir: str | None = None,
    ) -> DomainRecord:
        """Add a domain, or take over its changed spec; versions keep the spec they were made with.

        A `data_dir` that is known already stays where none is given.
        """

        def work(session: Session) -> DomainRecord:
            row = session.get(DomainRow, name) or DomainRow(name=name, data_dir=None)
            row.spec = stored(session, SpecRow, spec_json)
            row.plugin_digest, row.source = plugin_digest, source
            row.data_dir = data_dir or row.data_dir
            session.add(row)
            session.flush()
            return _record(row)

        return self._database.write(work)

    def get(self, name: str) -> DomainRecord:
        """Raises UnknownDomain."""
        return self._database.read(lambda session: _record(find_domain(session, name)))

    def list(self) -> list[DomainRecord]:
        """All domains by name."""
        rows = select(DomainRow).order_by(DomainRow.name)
        return self._database.read(lambda session: [_record(row) for row in session.scalars(rows)])

    def remove(self, name: str) -> None:
        """Remove a domain that nothing was trained for.

        Raises:
            UnknownDomain: there is none.
            Conflict: versions or runs name it.
        """

        def work(session: Session) -> None:
            row = find_domain(session, name)
            versions = _count(session, VersionRow.domain, name)
            runs = _count(session, RunDomainRow.domain, name)
            if versions or runs:
                raise Conflict(
                    f"Domain {name} has {versions} versions and {runs} runs",
                    "It stays in the catalog, so that their origin is known.",
                )
            session.delete(row)

        self._database.write(work)


def find_domain(session: Session, name: str, hold: bool = False) -> DomainRow:
    """The row of a domain; held, so that others wait for it until the transaction ends.

    Raises:
        UnknownDomain
    """
    # Rows of others may name it meanwhile: FOR NO KEY UPDATE.
    held = {"of": DomainRow, "key_share": True} if hold else None
    row = session.get(DomainRow, name, with_for_update=held)
    if row is None:
        near = difflib.get_close_matches(name, session.scalars(select(DomainRow.name)).all())
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UnknownDomain(
            f"Domain {name} is not in the catalog",
            f"{hint}Add it: u2net domain add {name} --data DIR",
        )
    return row


def _count(session: Session, column: Any, name: str) -> int:
    return session.scalar(select(func.count()).where(column == name)) or 0


def _record(row: DomainRow) -> DomainRecord:
    return DomainRecord(
        name=row.name,
        spec=row.spec.content,
        spec_digest=row.spec.digest,
        plugin_digest=row.plugin_digest,
        source=row.source,
        data_dir=row.data_dir,
        created_at=row.created_at,  # type: ignore[arg-type]  # pydantic reads the ISO text
    )
