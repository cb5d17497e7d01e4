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
