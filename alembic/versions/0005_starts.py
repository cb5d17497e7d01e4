"""The version that a domain of a run began with."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("u2net_run_domains") as table:
        table.add_column(sa.Column("start_id", sa.Integer(), nullable=True))
        table.create_foreign_key(
            "fk_u2net_run_domains_start_id", "u2net_versions", ["start_id"], ["id"]
        )
        table.create_index("ix_u2net_run_domains_start_id", ["start_id"])


def downgrade() -> None:
    with op.batch_alter_table("u2net_run_domains") as table:
        table.drop_index("ix_u2net_run_domains_start_id")
        table.drop_constraint("fk_u2net_run_domains_start_id", type_="foreignkey")
        table.drop_column("start_id")
