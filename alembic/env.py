"""How Alembic reaches the catalog: by the program's connection, or from `alembic` by settings."""

from alembic import context
from sqlalchemy import Connection

from u2net_platform.catalog.database import Database
from u2net_platform.catalog.tables import VERSION_TABLE, Base
from u2net_platform.settings import Settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with Database(Settings().database_url).connection() as opened:
        run(opened)
