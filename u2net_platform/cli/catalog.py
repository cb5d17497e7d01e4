"""`u2net catalog`: the database's own upkeep."""

from __future__ import annotations

import typer

from u2net_platform.cli.output import Json, emit

app = typer.Typer(help="The catalog's database.", no_args_is_help=True)


@app.callback()
def catalog() -> None:
    """The catalog's database."""


@app.command()
def upgrade(_json: Json = False) -> None:
    """Bring the catalog's tables to this program's revision; a new database gets them.

    \b
    Examples:
      u2net catalog upgrade
    """
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings

    revision = Catalog.upgrade(Settings().database_url)
    emit(revision, lambda data: f"catalog at revision {data.current}")


@app.command()
def status(_json: Json = False) -> None:
    """Tell the revision of the catalog's database, and the one that this program works with.

    \b
    Examples:
      u2net catalog status --json
    """
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings

    revision = Catalog.revision(Settings().database_url)
    emit(
        revision,
        lambda data: f"database at revision {data.current or 'none'}, program at {data.head}",
    )
