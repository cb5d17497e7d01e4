"""Rounds of federations, and what each site contributed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "u2net_rounds",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("backbone_digest", sa.String(length=64), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["u2net_runs.id"], name="fk_u2net_rounds_run_id"),
        sa.PrimaryKeyConstraint("run_id", "number", "attempt", name="pk_u2net_rounds"),
    )
    op.create_table(
        "u2net_contributions",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=True),
        sa.Column("bytes_down", sa.BigInteger(), nullable=False),
        sa.Column("bytes_up", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["u2net_runs.id"], name="fk_u2net_contributions_run_id"
        ),
        sa.PrimaryKeyConstraint(
            "run_id", "number", "attempt", "site", name="pk_u2net_contributions"
        ),
    )
    op.create_index("ix_u2net_contributions_site", "u2net_contributions", ["site"])


def downgrade() -> None:
    op.drop_table("u2net_contributions")
    op.drop_table("u2net_rounds")
