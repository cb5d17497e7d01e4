"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
# Numbered one up from the last: the program tells older from newer by it (tables.HEAD_REVISION).
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
