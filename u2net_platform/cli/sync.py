"""`u2net model sync`: MLflow learns what it does not know yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.bundle import sheet_of
from u2net_platform.cli.output import Json, emit, progress

if TYPE_CHECKING:
    from rich.table import Table


def sync(
    pictures: Annotated[
        int,
        typer.Option(min=0, help="Add so many test cases to models without: images of patients."),
    ] = 0,
    _json: Json = False,
) -> None:
    """Tell MLflow what it was not told: what runs logged while it was down, versions, aliases.

    \b
    Examples:
      u2net model sync
      u2net model sync --pictures 3 --json
    """
    from u2net_platform.errors import CatalogUnreachable
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.sync import register_all, send_outboxes

    settings = Settings()
    runs, refused = send_outboxes(settings)
    sheet = (lambda reference: sheet_of(reference, pictures)) if pictures else None
    with progress("Registering") as done:
        found = register_all(settings, done, sheet)
    found.failed |= refused
    reasons = "\n".join(f"{name}: {reason}" for name, reason in found.failed.items())
    failure = CatalogUnreachable(
        f"MLflow could not be told of all:\n{reasons}", "Put right what is named, then repeat."
    )
    emit({"runs": runs} | vars(found), _table, failure if found.failed else None)


def _table(data: dict[str, Any]) -> Table | str:
    from rich.table import Table

    table = Table("", "")
    for run in data["runs"]:
        table.add_row(run, "sent what waited")
    for version, name in data["registered"].items():
        table.add_row(version, f"registered as {name}")
    for version in data["updated"]:
        table.add_row(version, "brought up to date")
    for alias in data["aliases"]:
        table.add_row(alias, "set")
    for name, reason in data["failed"].items():
        table.add_row(name, f"FAILED: {reason}")
    return table if table.rows else "MLflow knew everything already"
