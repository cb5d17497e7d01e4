"""`u2net model sync`: what MLflow has yet to be told."""

from __future__ import annotations

from u2net_platform.cli.output import Json, emit, talk


def sync(_json: Json = False) -> None:
    """Tell MLflow what it could not be told while its server was down.

    \b
    Examples:
      u2net model sync
    """
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.sync import sync as send

    emit({"runs": send(Settings(), talk)}, lambda data: f"{len(data['runs'])} runs sent")
