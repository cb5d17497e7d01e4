"""Rounds of federations: who contributed, who was refused, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVarTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from u2net_platform.catalog.database import Database
from u2net_platform.catalog.records import ContributionRecord, RoundRecord
from u2net_platform.catalog.tables import ContributionRow, RoundRow, RunRow, VersionRow
from u2net_platform.errors import UnknownRecord

CONTRIBUTION = tuple(ContributionRecord.model_fields)
Row = TypeVarTuple("Row")
ROUND = tuple(RoundRecord.model_fields.keys() - {"contributions", "created_at"})


class Federations:
    """Queries about rounds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def end_round(self, done: RoundRecord) -> None:
        """Keep an attempt at a round; the same again replaces it, as after a kill.

        Raises:
            UnknownRecord: the run is not in the catalog.
        """

        def work(session: Session) -> None:
            if session.get(RunRow, done.run_id) is None:
                raise UnknownRecord(f"Run {done.run_id} is not in the catalog", "Start it anew.")
            key = {"run_id": done.run_id, "number": done.number, "attempt": done.attempt}
            session.merge(
                RoundRow(
                    **{name: getattr(done, name) for name in ROUND},
                    created_at=done.created_at.isoformat(timespec="microseconds"),
                )
            )
            for one in done.contributions:
                session.merge(ContributionRow(**key, **one.model_dump()))

        self._database.write(work)

    def rounds(self, run_id: str) -> list[RoundRecord]:
        """All attempts of a run, in their order."""

        def query(session: Session) -> list[RoundRecord]:
            rows = select(RoundRow).where(RoundRow.run_id == run_id)
            sent = select(ContributionRow).where(ContributionRow.run_id == run_id)
            by_round: dict[tuple[int, int], list[ContributionRecord]] = {}
            for row in session.scalars(sent.order_by(ContributionRow.site)):
                record = ContributionRecord(**{name: getattr(row, name) for name in CONTRIBUTION})
                by_round.setdefault((row.number, row.attempt), []).append(record)
            return [
                RoundRecord(
                    **{name: getattr(row, name) for name in ROUND},
                    created_at=row.created_at,  # type: ignore[arg-type]  # pydantic reads ISO
                    contributions=tuple(by_round.get((row.number, row.attempt), ())),
                )
                for row in session.scalars(rows.order_by(RoundRow.number, RoundRow.attempt))
            ]

        return self._database.read(query)

    def sites(self, run_id: str) -> dict[str, int]:
        """The sites of a run whose contributions went into its backbone, and to how many rounds."""
        rows = (
            taken(select(ContributionRow.site, func.count()))
            .where(ContributionRow.run_id == run_id)
            .group_by(ContributionRow.site)
            .order_by(ContributionRow.site)
        )
        found = self._database.read(lambda session: session.execute(rows).all())
        pairs = [(row[0], row[1]) for row in found]
        return dict(pairs)

    def known_sites(self) -> list[str]:
        """All sites that were ever asked to contribute, or of which a version tells, by name."""
        rows = select(ContributionRow.site).distinct()

        def query(session: Session) -> list[str]:
            told = (site for _, sites in noted_sites(session) for site in sites)
            return sorted({*session.scalars(rows), *told})

        return self._database.read(query)


def noted_sites(session: Session) -> Iterator[tuple[str, Collection[str]]]:
    """By run, the sites that its versions name: at a site, or of a bundle, there are no rounds."""
    rows = select(VersionRow.run_id, VersionRow.metrics["federation"])
    rows = rows.join(RunRow, RunRow.id == VersionRow.run_id).where(RunRow.kind == "federate")
    for run, noted in session.execute(rows):
        yield run, (noted or {}).get("sites", {})


def taken(contributions: Select[*Row]) -> Select[*Row]:
    """Of a query of contributions, those that went into a backbone: of an attempt that counted."""
    return contributions.join(
        RoundRow,
        (RoundRow.run_id == ContributionRow.run_id)
        & (RoundRow.number == ContributionRow.number)
        & (RoundRow.attempt == ContributionRow.attempt),
    ).where(ContributionRow.accepted, RoundRow.status == "completed")
