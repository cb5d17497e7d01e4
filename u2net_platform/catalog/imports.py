"""Versions that were made elsewhere: taken in with their run, whoever else takes them in."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from u2net_platform.catalog.contents import stored
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.domains import find_domain
from u2net_platform.catalog.records import NewVersion, RunRecord, VersionRecord
from u2net_platform.catalog.runs import add_run, members_of, run_record
from u2net_platform.catalog.tables import DomainRow, RunRow, SpecRow, VersionRow
from u2net_platform.catalog.versions import add_version, version_record
from u2net_platform.domains.spec import digest_of
from u2net_platform.errors import Conflict

ORIGIN = "bundle"  # among a version's metrics: the bundle that it, or scores of it, came from
LONGEST_ID = 64
# What is the same of one run in all catalogs.
OF_A_RUN = {"kind", "mode", "recipe", "seed", "fold", "device", "step", "started_at"}


class Taken(NamedTuple):
    """A version that was taken in. `new`: it was not there before.

    added: metrics that the version here did not have. kept: those that it has otherwise, or that
    nobody vouches for.
    """

    record: VersionRecord
    new: bool
    added: tuple[str, ...]
    kept: tuple[str, ...]


class Imports:
    """Takes in versions of other catalogs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, new: NewVersion, run: RunRecord, trusted: bool = False) -> Taken:
        """Publish a version with its run, and its domain if need be: all of it, or nothing.

        The same parts again are the version that is there: it gets the metrics that it lacks. One
        that was made here, or came in a signed bundle, gets them from whom the user trusts: by
        scores a version is deployed.
        """

        def work(session: Session) -> Taken:
            _require_domain(session, new)
            row = _same_parts(session, new)
            if row is not None:
                made_here = session.get_one(RunRow, row.run_id).directory != run.directory
                signed = bool(row.metrics.get(ORIGIN, {}).get("signer"))
                return _completed(row, new, closed=(made_here or signed) and not trusted)
            run_id = _find_or_add_run(session, run, new.domain)
            row = add_version(session, new.model_copy(update={"run_id": run_id}))
            return Taken(version_record(row), True, (), ())

        return self._database.write(work)


def _require_domain(session: Session, new: NewVersion) -> None:
    if session.get(DomainRow, new.domain) is None:
        spec = stored(session, SpecRow, new.spec)
        row = DomainRow(name=new.domain, spec=spec, source="bundle")
        row.plugin_digest = new.plugin_digest
        session.add(row)
        session.flush()
    find_domain(session, new.domain, hold=True)


def _same_parts(session: Session, new: NewVersion) -> VersionRow | None:
    rows = select(VersionRow).filter_by(
        domain=new.domain,
        backbone_digest=new.backbone_digest,
        domain_digest=new.domain_digest,
        plugin_digest=new.plugin_digest,
        spec_digest=digest_of(new.spec),
        plan_digest=digest_of(new.plan),
    )
    return session.scalars(rows.order_by(VersionRow.number).limit(1)).first()


def _completed(row: VersionRow, new: NewVersion, closed: bool) -> Taken:
    scores = {key: value for key, value in new.metrics.items() if key != ORIGIN}
    other = {key: value for key, value in scores.items() if row.metrics.get(key) != value}
    added = {key: value for key, value in other.items() if key not in row.metrics and not closed}
    kept = tuple(key for key in other if key not in added)
    if added:
        origin = {ORIGIN: new.metrics[ORIGIN]} if ORIGIN in new.metrics else {}
        row.metrics = {**origin, **row.metrics, **added}
    return Taken(version_record(row), False, tuple(added), kept)


def _find_or_add_run(session: Session, run: RunRecord, domain: str) -> str:
    """The run's id here: another one, where a run of this name is not it or lacks the domain.

    Raises:
        Conflict: that name has another run too.
    """
    # A domain whose data the bundle does not tell may come with a bundle that does.
    named = [name for name in run.domains if name == domain or name in run.fingerprints]
    known = set(session.scalars(select(DomainRow.name).where(DomainRow.name.in_(named))))
    digest = digest_of(run.model_dump(mode="json", include=OF_A_RUN) | {"domain": domain})
    for name in (run.id, f"{run.id[: LONGEST_ID - 13]}-{digest[:12]}"):
        row = session.get(RunRow, name)
        if row is None:
            row = add_run(session, run.model_copy(update={"id": name, "domains": ()}))
        elif not _is(run_record(row), run, domain):
            continue
        # Domains that were not known when a part of the run came before. One that was made here
        # has all of its own.
        if row.directory == run.directory:
            there = {member.domain for member in row.members}
            row.members += members_of(session, run, known - there)
        return name
    raise Conflict(
        f"The catalog has other runs under both names of run {run.id}, {name} being the second",
        "Import the bundle into a catalog of its own: set U2NET_HOME to another folder.",
    )


def _is(found: RunRecord, wanted: RunRecord, domain: str) -> bool:
    same = found.model_dump(include=OF_A_RUN) == wanted.model_dump(include=OF_A_RUN)
    return same and (domain in found.domains or found.directory == wanted.directory)
