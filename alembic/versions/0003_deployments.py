"""Deployments, and runs found by the data that they saw."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "u2net_deployments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("domain", sa.String(length=63), nullable=False),
        sa.Column("alias", sa.String(length=63), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("previous_id", sa.Integer(), nullable=True),
        sa.Column("restores_id", sa.Integer(), nullable=True),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["domain"], ["u2net_domains.name"], name="fk_u2net_deployments_domain"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["u2net_versions.id"], name="fk_u2net_deployments_version_id"
        ),
        sa.ForeignKeyConstraint(
            ["previous_id"], ["u2net_versions.id"], name="fk_u2net_deployments_previous_id"
        ),
        sa.ForeignKeyConstraint(
            ["restores_id"], ["u2net_deployments.id"], name="fk_u2net_deployments_restores_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_u2net_deployments"),
    )
    op.create_index(
        "ix_u2net_deployments_domain_alias_site_id",
        "u2net_deployments",
        ["domain", "alias", "site", "id"],
    )
    op.create_index("ix_u2net_deployments_version_id", "u2net_deployments", ["version_id"])
    op.add_column("u2net_run_domains", sa.Column("data_digest", sa.String(length=64)))
    op.create_index("ix_u2net_run_domains_data_digest", "u2net_run_domains", ["data_digest"])
    _fill_data_digests()


def downgrade() -> None:
    op.drop_index("ix_u2net_run_domains_data_digest", "u2net_run_domains")
    op.drop_column("u2net_run_domains", "data_digest")
    op.drop_table("u2net_deployments")


def _fill_data_digests() -> None:
    members = sa.table(
        "u2net_run_domains",
        sa.column("run_id", sa.String),
        sa.column("domain", sa.String),
        sa.column("fingerprint", sa.JSON),
        sa.column("data_digest", sa.String),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(members)).all():
        digest = (row.fingerprint or {}).get("data_digest")
        if digest is not None:
            connection.execute(
                members.update()
                .where(members.c.run_id == row.run_id, members.c.domain == row.domain)
                .values(data_digest=digest)
            )
