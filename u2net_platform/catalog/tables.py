"""The catalog's tables. Their names carry a prefix: MLflow may live in the same database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Revisions are numbered, so that older and newer are told apart without importing Alembic.
HEAD_REVISION = "0006"
VERSION_TABLE = "u2net_alembic_version"

DIGEST = String(64)
NAME = String(63)
TIME = String(32)


def now() -> str:
    """The time as ISO 8601 in UTC, of fixed width: text that sorts by time on every database."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON, float: Double}


class OrNone(TypeDecorator[int | None]):
    """A number from 0 on, or None, in a column that holds no NULL: there it is -1."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int:  # noqa: ARG002
        return -1 if value is None else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value == -1 else value


class SpecRow(Base):
    """A spec, once for all domains and versions that have it."""

    __tablename__ = "u2net_specs"

    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    content: Mapped[dict[str, Any]]


class PlanRow(Base):
    """A plan, once for all versions that have it."""

    __tablename__ = "u2net_plans"

    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    content: Mapped[dict[str, Any]]


class DomainRow(Base):
    __tablename__ = "u2net_domains"

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    spec_digest: Mapped[str] = mapped_column(ForeignKey(SpecRow.digest))
    plugin_digest: Mapped[str] = mapped_column(DIGEST)
    source: Mapped[str]
    data_dir: Mapped[str | None]
    created_at: Mapped[str] = mapped_column(TIME, default=now)

    spec: Mapped[SpecRow] = relationship(lazy="joined")


class RunRow(Base):
    __tablename__ = "u2net_runs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    mode: Mapped[str] = mapped_column(String(32))
    recipe: Mapped[dict[str, Any]]
    seed: Mapped[int]
    fold: Mapped[int | None] = mapped_column(OrNone, nullable=False)
    device: Mapped[str] = mapped_column(String(64))
    directory: Mapped[str]
    mlflow_run_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), index=True)
    step: Mapped[int]
    started_at: Mapped[str] = mapped_column(TIME, index=True)
    ended_at: Mapped[str | None] = mapped_column(TIME)

    members: Mapped[list[RunDomainRow]] = relationship(
        lazy="selectin", order_by="RunDomainRow.position"
    )
    base: Mapped[RunBaseRow | None] = relationship(lazy="joined")


class RunDomainRow(Base):
    """A domain that a run trained, in its place among them, and the data it was given.

    start_id: the version whose own weights of a domain it began with.
    """

    __tablename__ = "u2net_run_domains"

    run_id: Mapped[str] = mapped_column(ForeignKey(RunRow.id), primary_key=True)
    domain: Mapped[str] = mapped_column(ForeignKey(DomainRow.name), primary_key=True, index=True)
    position: Mapped[int]
    fingerprint: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    data_digest: Mapped[str | None] = mapped_column(DIGEST, index=True)
    start_id: Mapped[int | None] = mapped_column(ForeignKey("u2net_versions.id"), index=True)

    start: Mapped[VersionRow | None] = relationship(lazy="joined")


class BackboneRow(Base):
    """Shared weights by the digest of their file."""

    __tablename__ = "u2net_backbones"

    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    architecture: Mapped[dict[str, Any]]
    run_id: Mapped[str] = mapped_column(ForeignKey(RunRow.id), index=True)
    created_at: Mapped[str] = mapped_column(TIME, default=now)


class VersionRow(Base):
    """A domain's weights on a backbone: written once, only its metrics grow."""

    __tablename__ = "u2net_versions"
    __table_args__ = (
        UniqueConstraint("domain", "number"),
        Index(None, "domain", "created_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    domain: Mapped[str] = mapped_column(ForeignKey(DomainRow.name))
    number: Mapped[int]
    backbone_digest: Mapped[str] = mapped_column(ForeignKey(BackboneRow.digest), index=True)
    domain_digest: Mapped[str] = mapped_column(DIGEST, index=True)
    spec_digest: Mapped[str] = mapped_column(ForeignKey(SpecRow.digest), index=True)
    plugin_digest: Mapped[str] = mapped_column(DIGEST)
    plan_digest: Mapped[str] = mapped_column(ForeignKey(PlanRow.digest), index=True)
    run_id: Mapped[str] = mapped_column(ForeignKey(RunRow.id), index=True)
    architecture: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    probe: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[str] = mapped_column(TIME, default=now, index=True)

    spec: Mapped[SpecRow] = relationship(lazy="joined")
    plan: Mapped[PlanRow] = relationship(lazy="joined")
    backbone: Mapped[BackboneRow] = relationship(lazy="joined")


class RunBaseRow(Base):
    """The version a run started from: a table apart, since runs and versions name each other."""

    __tablename__ = "u2net_run_bases"

    run_id: Mapped[str] = mapped_column(ForeignKey(RunRow.id), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey(VersionRow.id), index=True)

    version: Mapped[VersionRow] = relationship(lazy="joined")


class DeploymentRow(Base):
    """A change of what is in service; rows are only added. A site of "" means everywhere.

    version: None where nothing is in service since. previous: what was in service until then.
    restores: of a rollback, the row it went back to; None if that was before the first.
    """

    __tablename__ = "u2net_deployments"
    __table_args__ = (Index(None, "domain", "alias", "site", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    domain: Mapped[str] = mapped_column(ForeignKey(DomainRow.name))
    alias: Mapped[str] = mapped_column(NAME)
    site: Mapped[str] = mapped_column(NAME)
    version_id: Mapped[int | None] = mapped_column(ForeignKey(VersionRow.id), index=True)
    previous_id: Mapped[int | None] = mapped_column(ForeignKey(VersionRow.id))
    restores_id: Mapped[int | None] = mapped_column(ForeignKey("u2net_deployments.id"))
    action: Mapped[str] = mapped_column(String(16))
    forced: Mapped[bool] = mapped_column(default=False)
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str]
    created_at: Mapped[str] = mapped_column(TIME, default=now)

    version: Mapped[VersionRow | None] = relationship(foreign_keys=version_id, lazy="joined")
    previous: Mapped[VersionRow | None] = relationship(foreign_keys=previous_id, lazy="joined")


class RoundRow(Base):
    """An attempt at a round of a federation; the one that is `completed` made the backbone."""

    __tablename__ = "u2net_rounds"

    run_id: Mapped[str] = mapped_column(ForeignKey(RunRow.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    backbone_digest: Mapped[str | None] = mapped_column(DIGEST)
    seconds: Mapped[float]
    created_at: Mapped[str] = mapped_column(TIME, default=now)


class ContributionRow(Base):
    """What a site sent in an attempt at a round, or why it was refused."""

    __tablename__ = "u2net_contributions"

    run_id: Mapped[str] = mapped_column(ForeignKey(RunRow.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(NAME, primary_key=True, index=True)
    accepted: Mapped[bool]
    reason: Mapped[str] = mapped_column(default="")
    examples: Mapped[int]
    steps: Mapped[int]
    norm: Mapped[float | None]
    bytes_down: Mapped[int] = mapped_column(BigInteger)
    bytes_up: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
