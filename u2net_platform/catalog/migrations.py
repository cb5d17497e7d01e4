"""The schema's revision: reading it is quick, changing it imports Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from u2net_platform.catalog.tables import HEAD_REVISION, VERSION_TABLE
from u2net_platform.errors import CatalogBehind

PACKAGE = Path(__file__).parents[1]


def migrations_folder() -> Path:
    """The checkout's `alembic/`, or in an installed wheel the copy within the package.

    In a wheel the folder beside the package is the Alembic library itself, which has no env.py.
    """
    checkout = PACKAGE.parent / "alembic"
    return checkout if (checkout / "env.py").is_file() else PACKAGE / "_alembic"


def current_revision(connection: Connection) -> str | None:
    """The database's revision; None where there is no catalog yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return revision


def is_empty(connection: Connection) -> bool:
    return not inspect(connection).get_table_names()


def migrate(connection: Connection) -> None:
    """Bring the database to the program's revision, within the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def require_head(revision: str | None, shown_url: str) -> None:
    """Refuse a database that is older or newer than this program.

    Raises:
        CatalogBehind: with the command that helps.
    """
    if revision == HEAD_REVISION:
        return
    refuse_newer(revision, shown_url)
    raise CatalogBehind(
        f"The catalog {shown_url} has revision {revision or 'none'}, the program {HEAD_REVISION}",
        "Upgrade it: u2net catalog upgrade",
    )


def refuse_newer(revision: str | None, shown_url: str) -> None:
    """Refuse a database that a later release of this program wrote.

    Raises:
        CatalogBehind
    """
    if revision is not None and revision > HEAD_REVISION:
        raise CatalogBehind(
            f"The catalog {shown_url} has revision {revision}, newer than the program's "
            f"{HEAD_REVISION}",
            "Upgrade the program: pip install --upgrade u2net-platform",
        )
