"""Changes after which nothing is in service."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("u2net_deployments") as table:
        table.alter_column("version_id", existing_type=sa.Integer(), nullable=True)


def downgrade() -> None:
    with op.batch_alter_table("u2net_deployments") as table:
        table.alter_column("version_id", existing_type=sa.Integer(), nullable=False)
