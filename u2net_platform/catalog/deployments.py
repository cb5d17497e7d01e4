"""Which version is in service under which alias, at which site; every change is kept.

Rows are only ever added. The newest of a slot (domain, alias, site) is what is in service.
"""

from __future__ import annotations

import re

from sqlalchemy import Select, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from u2net_platform.catalog.database import Database
from u2net_platform.catalog.domains import find_domain
from u2net_platform.catalog.records import (
    EVERYTHING,
    DeploymentRecord,
    Page,
    RunRecord,
    Slot,
    VersionRecord,
    is_evaluated,
)
from u2net_platform.catalog.references import NAME
from u2net_platform.catalog.runs import run_record
from u2net_platform.catalog.tables import DeploymentRow, RunRow, VersionRow
from u2net_platform.catalog.versions import find_version, version_record
from u2net_platform.errors import (
    Conflict,
    InvalidSlot,
    NotEvaluated,
    NothingToRollBack,
    UnknownRecord,
)

RESERVED_ALIASES = r"latest|v\d+"
LONGEST_ACTOR = 128
EVERYWHERE = ""  # a site's name in the table; NULL would be unequal to itself


class Deployments:
    """Changes of what is in service, and queries about it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def deploy(
        self,
        slot: Slot,
        number: int,
        actor: str,
        reason: str = "",
        force: bool = False,
    ) -> DeploymentRecord:
        """Put a version of the slot's domain into service. What is there already stays as it is.

        Raises:
            UnknownDomain, UnknownRecord: there is no such version.
            NotEvaluated: it has scores neither of test cases nor of other data, and `force` is not
                given.
            InvalidSlot: alias, site or actor is no name.
        """
        _require_names(slot, actor)

        def work(session: Session) -> DeploymentRecord:
            # The domain's row is held, so that changes of a slot come one after the other.
            find_domain(session, slot.domain, hold=True)
            version = find_version(session, slot.domain, number)
            evaluated = is_evaluated(version.metrics)
            if not evaluated and not force:
                run = run_record(session.get_one(RunRow, version.run_id))
                raise not_evaluated(f"{version.domain}:{version.number}", run)
            return _put(session, slot, version, actor, reason)

        return self._database.write(work)

    def replace(
        self, known: DeploymentRecord | None, slot: Slot, number: int, actor: str, reason: str
    ) -> DeploymentRecord:
        """As `deploy`, where what is in service still is what it was held against; None: nothing.

        Raises:
            Conflict: somebody has put another into service meanwhile.
        """
        _require_names(slot, actor)

        def work(session: Session) -> DeploymentRecord:
            find_domain(session, slot.domain, hold=True)
            holder = _holder(session, slot)
            if (holder.id if holder else None) != (known.id if known else None):
                raise Conflict(
                    f"What is in service as {slot} has changed meanwhile",
                    "Repeat the command: it goes by what is there now.",
                )
            version = find_version(session, slot.domain, number)
            return _put(session, slot, version, actor, reason)

        return self._database.write(work)

    def rollback(self, slot: Slot, actor: str, reason: str = "") -> DeploymentRecord:
        """Put back what was in service before, also nothing; again, and it is what was before.

        Raises:
            UnknownDomain
            NothingToRollBack: nothing was ever deployed, or all of it was taken back.
            InvalidSlot: alias, site or actor is no name.
        """
        _require_names(slot, actor)

        def work(session: Session) -> DeploymentRecord:
            find_domain(session, slot.domain, hold=True)
            newest = _newest(session, slot)
            if newest is None or _is_beginning(session, newest):
                raise NothingToRollBack(
                    f"Nothing was in service as {slot} before",
                    "See its history: u2net model history; or deploy another version.",
                )
            target = _before(session, slot, newest)
            row = _row(slot, target.version if target else None, newest, "rollback", actor, reason)
            if target is not None:
                row.forced, row.restores_id = target.forced, target.id
            return _added(session, row)

        return self._database.write(work)

    def withdraw(self, slot: Slot, actor: str, reason: str = "") -> DeploymentRecord:
        """Take what is in service out of it. A site has what is everywhere again.

        Raises:
            UnknownDomain
            UnknownRecord: nothing is in service in this very place.
            InvalidSlot: alias, site or actor is no name.
        """
        _require_names(slot, actor)

        def work(session: Session) -> DeploymentRecord:
            find_domain(session, slot.domain, hold=True)
            newest = _newest(session, slot)
            if newest is None or newest.version is None:
                raise UnknownRecord(
                    f"{slot} has nothing of its own in service",
                    f"See what is where: u2net catalog query deployed --domain {slot.domain}",
                )
            return _added(session, _row(slot, None, newest, "withdraw", actor, reason))

        return self._database.write(work)

    def in_service(self, slot: Slot) -> DeploymentRecord:
        """What is in service at a site; where it has nothing of its own, what is everywhere.

        Raises:
            UnknownDomain, UnknownRecord
        """
        return self._database.read(lambda session: _record(_in_service(session, slot)))

    def version_in_service(self, slot: Slot) -> VersionRecord:
        """The version of `in_service`. Raises as that."""

        def query(session: Session) -> VersionRecord:
            version = _in_service(session, slot).version
            assert version is not None  # what is in service
            return version_record(version)

        return self._database.read(query)

    def current(
        self,
        domain: str | None = None,
        alias: str | None = None,
        site: str | None = None,
        backbone: str | None = None,
        page: Page = EVERYTHING,
    ) -> list[DeploymentRecord]:
        """What is in service, by domain, alias and site; `backbone` is a digest or its beginning.

        At a site that is its own, and where it has none, what is everywhere.

        Raises:
            UnknownDomain
        """
        rows = _last_changes().where(DeploymentRow.version_id.is_not(None))
        if site is not None:
            rows = _at(site, rows)
        if backbone is not None:
            rows = rows.join(DeploymentRow.version).where(
                VersionRow.backbone_digest.startswith(backbone, autoescape=True)
            )
        return self._list(rows, domain, alias, None, page)

    def last_changes(self, domain: str) -> list[DeploymentRecord]:
        """The last change of each of a domain's slots, also of those that are empty since.

        Raises:
            UnknownDomain
        """
        return self._list(_last_changes(), domain, None, None, EVERYTHING)

    def history(
        self,
        domain: str | None = None,
        alias: str | None = None,
        site: str | None = None,
        page: Page = EVERYTHING,
    ) -> list[DeploymentRecord]:
        """All changes, the latest first.

        Raises:
            UnknownDomain
        """
        rows = select(DeploymentRow).order_by(DeploymentRow.id.desc())
        return self._list(rows, domain, alias, site, page)

    def _list(
        self,
        rows: Select[DeploymentRow],
        domain: str | None,
        alias: str | None,
        site: str | None,
        page: Page,
    ) -> list[DeploymentRecord]:
        row = DeploymentRow
        wanted = ((row.domain, domain), (row.alias, alias), (row.site, site))
        rows = rows.where(*(column == text for column, text in wanted if text is not None))
        part = rows.limit(page.limit).offset(page.offset)

        def query(session: Session) -> list[DeploymentRecord]:
            if domain is not None:
                find_domain(session, domain)
            return [_record(row) for row in session.scalars(part)]

        return self._database.read(query)


def _require_names(slot: Slot, actor: str) -> None:
    names = {"alias": slot.alias, "site": slot.site}
    for what, name in names.items():
        if name is not None and not re.fullmatch(NAME, name):
            raise InvalidSlot(
                f"{name!r} is no name of {what}",
                "Write small letters, digits, - and _, a letter first, at most 63.",
            )
    if re.fullmatch(RESERVED_ALIASES, slot.alias):
        raise InvalidSlot(f"MLflow keeps {slot.alias} for itself", "Choose another name.")
    _require_actor(actor)


def _require_actor(actor: str) -> None:
    if not 0 < len(actor) <= LONGEST_ACTOR:
        raise InvalidSlot(
            f"Who deploys has a name of {len(actor)} characters",
            f"Name yourself with --by, in at most {LONGEST_ACTOR}.",
        )


def not_evaluated(reference: str, run: RunRecord) -> NotEvaluated:
    """What is said of a version of a run without scores of test cases."""
    if not run.cases(reference.partition(":")[0], "test"):
        return NotEvaluated(
            f"{reference} was never evaluated, and its run names no test cases to do it on",
            f"Score it on other data: u2net evaluate {reference} --cases all --data FOLDER --keep"
            f" NAME; or deploy it as it is, marked: u2net model deploy {reference} --force",
        )
    return NotEvaluated(
        f"{reference} was never evaluated on its test cases",
        f"Evaluate it: u2net evaluate {reference}; or deploy it as it is, marked:"
        f" u2net model deploy {reference} --force",
    )


def _newest(session: Session, slot: Slot) -> DeploymentRow | None:
    return session.scalars(_of(slot).order_by(DeploymentRow.id.desc()).limit(1)).first()


def _put(
    session: Session, slot: Slot, version: VersionRow, actor: str, reason: str
) -> DeploymentRecord:
    before = _newest(session, slot)
    if before is not None and before.version_id == version.id:
        return _record(before)
    row = _row(slot, version, before, "deploy", actor, reason)
    row.forced = not is_evaluated(version.metrics)
    return _added(session, row)


def _in_service(session: Session, slot: Slot) -> DeploymentRow:
    """Raises UnknownDomain, UnknownRecord."""
    find_domain(session, slot.domain)
    if (row := _holder(session, slot)) is None:
        raise UnknownRecord(
            f"Nothing is in service as {slot}",
            f"Deploy a version: u2net model deploy {slot.domain}:N --as {slot.alias}",
        )
    return row


def _holder(session: Session, slot: Slot) -> DeploymentRow | None:
    """What holds at a site: its own, else what is everywhere."""
    for place in (slot, slot.model_copy(update={"site": None})):
        row = _newest(session, place)
        if row is not None and row.version is not None:
            return row
    return None


def _last_changes() -> Select[DeploymentRow]:
    slot = DeploymentRow.domain, DeploymentRow.alias, DeploymentRow.site
    newest = select(func.max(DeploymentRow.id)).group_by(*slot).scalar_subquery()
    return select(DeploymentRow).where(DeploymentRow.id.in_(newest)).order_by(*slot)


def _at(site: str, rows: Select[DeploymentRow]) -> Select[DeploymentRow]:
    """Of what is in service: a site's own, and where it has none, what is everywhere."""
    place = tuple_(DeploymentRow.domain, DeploymentRow.alias)
    own = rows.where(DeploymentRow.site == site)
    names = own.with_only_columns(DeploymentRow.domain, DeploymentRow.alias).order_by(None)
    everywhere = and_(DeploymentRow.site == EVERYWHERE, place.not_in(names))
    return rows.where(or_(DeploymentRow.site == site, everywhere))


def _is_beginning(session: Session, row: DeploymentRow) -> bool:
    """Whether a change has left the slot as it was before its first deployment."""
    stands_for = session.get_one(DeploymentRow, row.restores_id) if row.restores_id else row
    return stands_for.action == "rollback"


def _before(session: Session, slot: Slot, row: DeploymentRow) -> DeploymentRow | None:
    """The change that had left what was there before this one came; a rollback stands for the one
    that it has restored. None: the slot had never been used."""
    earlier = (
        _of(slot)
        .where(DeploymentRow.id < (row.restores_id or row.id))
        .order_by(DeploymentRow.id.desc())
        .limit(1)
    )
    found = session.scalars(earlier).first()
    if found is not None and found.restores_id is not None:
        return session.get(DeploymentRow, found.restores_id)
    return found


def _of(slot: Slot) -> Select[DeploymentRow]:
    return select(DeploymentRow).filter_by(
        domain=slot.domain, alias=slot.alias, site=slot.site or EVERYWHERE
    )


def _row(
    slot: Slot,
    version: VersionRow | None,
    before: DeploymentRow | None,
    action: str,
    actor: str,
    reason: str,
) -> DeploymentRow:
    return DeploymentRow(
        domain=slot.domain,
        alias=slot.alias,
        site=slot.site or EVERYWHERE,
        version=version,
        previous=before.version if before else None,
        action=action,
        actor=actor,
        reason=reason,
    )


def _added(session: Session, row: DeploymentRow) -> DeploymentRecord:
    session.add(row)
    session.flush()
    return _record(row)


def _record(row: DeploymentRow) -> DeploymentRecord:
    return DeploymentRecord(
        id=row.id,
        slot=Slot(domain=row.domain, alias=row.alias, site=row.site or None),
        version=f"{row.domain}:{row.version.number}" if row.version else None,
        previous=f"{row.domain}:{row.previous.number}" if row.previous else None,
        backbone_digest=row.version.backbone_digest if row.version else None,
        action=row.action,  # type: ignore[arg-type]  # pydantic checks it
        forced=row.forced,
        actor=row.actor,
        reason=row.reason,
        created_at=row.created_at,  # type: ignore[arg-type]  # pydantic reads the ISO text
    )
