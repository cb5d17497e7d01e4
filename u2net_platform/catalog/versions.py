"""Versions: which backbone, domain weights, spec and plan belong together, and its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Select, case, func, or_, select
from sqlalchemy.orm import Session

from u2net_platform.catalog.contents import stored
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.domains import find_domain
from u2net_platform.catalog.federations import noted_sites, taken
from u2net_platform.catalog.lineage import building_on
from u2net_platform.catalog.records import EVERYTHING, Lineage, NewVersion, Page, VersionRecord
from u2net_platform.catalog.tables import (
    BackboneRow,
    ContributionRow,
    PlanRow,
    RunDomainRow,
    RunRow,
    SpecRow,
    VersionRow,
)
from u2net_platform.errors import Conflict, UnknownRecord


class Versions:
    """Queries about versions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, new: NewVersion) -> VersionRecord:
        """Store a version under the next number of its domain, whoever else publishes meanwhile.

        The weights must be in the store already: a row never names a file that is not there.

        Raises:
            UnknownDomain, UnknownRecord: the domain or the run is not in the catalog.
            Conflict: its backbone is there as another network, such as `compact` for `lean`.
        """
        return self._database.write(lambda session: version_record(add_version(session, new)))

    def get(self, domain: str, number: int | None = None) -> VersionRecord:
        """One version of a domain; the latest, if no number is given.

        Raises:
            UnknownDomain, UnknownRecord
        """
        return self._database.read(
            lambda session: version_record(find_version(session, domain, number))
        )

    def by_backbone(self, digest: str) -> list[VersionRecord]:
        """All versions that share a backbone, by domain and number."""
        rows = select(VersionRow).where(VersionRow.backbone_digest == digest)
        return self._database.read(lambda session: _records(session, rows))

    def by_run(self, run_id: str) -> list[VersionRecord]:
        """All versions that a run has published, by domain and number."""
        rows = select(VersionRow).where(VersionRow.run_id == run_id)
        return self._database.read(lambda session: _records(session, rows))

    def add_metrics(self, domain: str, number: int, metrics: dict[str, Any]) -> VersionRecord:
        """Add metrics to a version; one of the same name is replaced.

        Raises:
            UnknownDomain, UnknownRecord
        """

        def work(session: Session) -> VersionRecord:
            find_domain(session, domain, hold=True)
            row = find_version(session, domain, number)
            row.metrics = {**row.metrics, **metrics}
            return version_record(row)

        return self._database.write(work)

    def has_backbone(self, beginning: str) -> bool:
        """Whether there is a backbone whose digest begins so."""
        rows = select(BackboneRow.digest).where(
            BackboneRow.digest.startswith(beginning, autoescape=True)
        )
        return self._database.read(lambda session: session.scalar(rows.limit(1)) is not None)

    def that_saw(self, data_digest: str, page: Page = EVERYTHING) -> list[Lineage]:
        """Versions whose weights learned from a data set: by their own run, or by one that this
        builds on. `data_digest` may be the beginning of a digest."""
        # No hexadecimal digit comes after "f"; by an index, which LIKE does not use everywhere.
        digest = RunDomainRow.data_digest.between(data_digest, f"{data_digest}g")
        directly = select(RunDomainRow.run_id).where(digest)
        return self._that_come_from(directly, page)

    def that_saw_case(self, domain: str, pattern: str, page: Page = EVERYTHING) -> list[Lineage]:
        """As `that_saw`, of a domain's cases whose ids match a pattern, as `P07_*`: those that
        trained, or were watched, for plans and choices come of both.

        Besides, those that cannot say, as a run that they come from has noted no cases: it came in
        a bundle, or is a federation's, of which nobody knows what the other sites had.
        """
        by_run = self._cases_of_runs(domain)
        saw = [run for run, cases in by_run.items() if _any_match(cases, pattern)]
        silent = [run for run, cases in by_run.items() if not cases]
        strangers = self._strangers(domain)
        silent += [run for run, _ in strangers]
        backbones = _of_unknown_makers([backbone for _, backbone in strangers])
        runs = select(RunRow.id).where(or_(RunRow.id.in_(silent), RunRow.kind == "federate"))
        return self._that_come_from(_runs(saw), page, runs, backbones)

    def knows_case(self, domain: str, pattern: str) -> bool:
        """Whether any run has noted such a case, were it as a test."""
        parts = ("training", "validation", "test")
        return any(_any_match(one, pattern) for one in self._cases_of_runs(domain, parts).values())

    def _strangers(self, domain: str) -> list[tuple[str, str]]:
        """Runs from bundles that may know a domain by what is not here: a base, or one trained
        with theirs before the catalog had it; and their backbones."""
        rows = select(VersionRow.run_id, VersionRow.backbone_digest, VersionRow.metrics["bundle"])
        rows = rows.join(RunRow, RunRow.id == VersionRow.run_id).where(RunRow.directory == "")
        found = self._database.read(lambda session: session.execute(rows).all())
        return [
            (run, backbone)
            for run, backbone, origin in found
            if origin and (origin.get("base") or domain in origin.get("trained_with", ()))
        ]

    def _cases_of_runs(
        self, domain: str, parts: Sequence[str] = ("training", "validation")
    ) -> dict[str, list[str]]:
        """By run, the cases that it saw: those that trained, or were watched."""
        rows = select(RunDomainRow.run_id, RunDomainRow.fingerprint).where(
            RunDomainRow.domain == domain
        )
        found = self._database.read(lambda session: session.execute(rows).all())
        splits = {run: (noted or {}).get("split", {}) for run, noted in found}
        return {
            run: [name for part in parts for name in split.get(part, ())]
            for run, split in splits.items()
        }

    def that_saw_site(self, site: str, page: Page = EVERYTHING) -> list[Lineage]:
        """As `that_saw`, of what a site contributed to a federation."""
        sent = taken(select(ContributionRow.run_id)).where(ContributionRow.site == site)
        told = self._database.read(
            lambda session: [run for run, sites in noted_sites(session) if site in sites]
        )
        either = select(RunRow.id).where(or_(RunRow.id.in_(sent), RunRow.id.in_(told)))
        return self._that_come_from(either, page)

    def _that_come_from(
        self, directly: Select[str], page: Page, *silent: Select[str]
    ) -> list[Lineage]:
        known = building_on(directly, *silent)
        rows = (
            select(
                VersionRow.domain,
                VersionRow.number,
                VersionRow.run_id,
                VersionRow.backbone_digest,
                VersionRow.created_at,
                case((VersionRow.run_id.in_(directly), True), (known.c.sure == 1, False)),
            )
            .join(known, known.c.node == VersionRow.run_id)
            .order_by(VersionRow.domain, VersionRow.number)
        )
        part = rows.limit(page.limit).offset(page.offset)
        found = self._database.read(lambda session: session.execute(part).all())
        return [
            Lineage(
                version=f"{domain}:{number}",
                run_id=run_id,
                backbone_digest=backbone,
                directly=direct,
                created_at=created_at,
            )
            for domain, number, run_id, backbone, created_at, direct in found
        ]

    def digests_of_files(self) -> set[str]:
        """Of every file in the store of weights that a version needs."""

        def query(session: Session) -> set[str]:
            columns = VersionRow.backbone_digest, VersionRow.domain_digest, VersionRow.probe
            digests: set[str] = set()
            for backbone, domain, probe in session.execute(select(*columns)):
                digests |= {backbone, domain} | ({probe["input"]} if probe else set())
            return digests

        return self._database.read(query)

    def list(self, domain: str | None = None, page: Page = EVERYTHING) -> list[VersionRecord]:
        """Versions by domain and number.

        Raises:
            UnknownDomain
        """
        rows = select(VersionRow)
        if domain is not None:
            rows = rows.where(VersionRow.domain == domain)

        def query(session: Session) -> list[VersionRecord]:
            if domain is not None:
                find_domain(session, domain)
            return _records(session, rows, page)

        return self._database.read(query)


def _any_match(names: Iterable[str], pattern: str) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _runs(ids: list[str]) -> Select[str]:
    return select(RunRow.id).where(RunRow.id.in_(ids))


def _of_unknown_makers(backbones: list[str]) -> Select[str]:
    """Those that were only adapted to, as far as the catalog knows."""
    made = select(VersionRow.backbone_digest).join(RunRow, RunRow.id == VersionRow.run_id)
    made = made.where(RunRow.kind != "adapt", VersionRow.backbone_digest.in_(backbones))
    rows = select(BackboneRow.digest).where(BackboneRow.digest.in_(backbones))
    return rows.where(BackboneRow.digest.not_in(made))


def find_version(session: Session, domain: str, number: int | None) -> VersionRow:
    """Raises UnknownDomain, UnknownRecord."""
    find_domain(session, domain)
    rows = select(VersionRow).where(VersionRow.domain == domain)
    if number is not None:
        rows = rows.where(VersionRow.number == number)
    row = session.scalars(rows.order_by(VersionRow.number.desc()).limit(1)).first()
    if row is None:
        if number is not None:
            raise UnknownRecord(f"Domain {domain} has no version {number}", "See: u2net model list")
        raise UnknownRecord(
            f"Domain {domain} has no version",
            f"Train it (u2net train {domain}), or take one in: u2net model import BUNDLE",
        )
    return row


def add_version(session: Session, new: NewVersion) -> VersionRow:
    # The domain's row is held first, so that numbers are given out one at a time.
    find_domain(session, new.domain, hold=True)
    if session.get(RunRow, new.run_id) is None:
        raise UnknownRecord(
            f"Run {new.run_id} is not in the catalog", "Publish from its own catalog."
        )
    latest = session.scalar(
        select(func.max(VersionRow.number)).where(VersionRow.domain == new.domain)
    )
    row = VersionRow(
        domain=new.domain,
        number=(latest or 0) + 1,
        backbone=_backbone(session, new),
        domain_digest=new.domain_digest,
        spec=stored(session, SpecRow, new.spec),
        plugin_digest=new.plugin_digest,
        plan=stored(session, PlanRow, new.plan),
        run_id=new.run_id,
        architecture=new.architecture,
        metrics=new.metrics,
        probe=new.probe,
    )
    session.add(row)
    session.flush()
    return row


def _backbone(session: Session, new: NewVersion) -> BackboneRow:
    """The backbone of a digest, once for all versions on it. Raises Conflict, as `publish`."""
    digest, described = new.backbone_digest, new.backbone_architecture
    row = session.get(BackboneRow, digest)
    if row is None:
        return BackboneRow(digest=digest, architecture=described, run_id=new.run_id)
    for key in row.architecture.keys() & described.keys():
        if row.architecture[key] != described[key]:
            raise Conflict(
                f"The backbone {digest[:12]} is in the catalog with {key} {row.architecture[key]}, "
                f"not {described[key]}",
                "One of the two is described wrongly; see which are on it: u2net model list",
            )
    return row


def _records(
    session: Session, rows: Select[VersionRow], page: Page = EVERYTHING
) -> list[VersionRecord]:
    order = VersionRow.domain, VersionRow.number
    # The page is cut before specs and plans are joined: what is left out costs nothing.
    ids = rows.with_only_columns(VersionRow.id).order_by(*order)
    ids = ids.limit(page.limit).offset(page.offset)
    cut = select(VersionRow).where(VersionRow.id.in_(ids.scalar_subquery())).order_by(*order)
    return [version_record(row) for row in session.scalars(cut)]


def version_record(row: VersionRow) -> VersionRecord:
    return VersionRecord(
        id=row.id,
        domain=row.domain,
        number=row.number,
        backbone_digest=row.backbone_digest,
        backbone_architecture=row.backbone.architecture,
        domain_digest=row.domain_digest,
        spec=row.spec.content,
        spec_digest=row.spec_digest,
        plugin_digest=row.plugin_digest,
        plan=row.plan.content,
        plan_digest=row.plan_digest,
        run_id=row.run_id,
        architecture=row.architecture,
        metrics=row.metrics,
        probe=row.probe,
        created_at=row.created_at,  # type: ignore[arg-type]  # pydantic reads the ISO text
    )
