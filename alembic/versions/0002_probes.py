"""What a version makes of its probe, so that it can be proven unchanged."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("u2net_versions", sa.Column("probe", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("u2net_versions", "probe")
