"""`u2net info` and `u2net doctor`: what is installed here, and whether it is fit to work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from u2net_platform.cli.output import Json, emit
from u2net_platform.errors import U2NetError

if TYPE_CHECKING:
    from rich.table import Table


def show_version(wanted: bool) -> None:
    """What `u2net --version` does."""
    if wanted:
        from u2net_platform import __version__

        typer.echo(__version__)
        raise typer.Exit


def info(_json: Json = False) -> None:
    """Show the version, and where things lie on this machine.

    \b
    Each place is an environment variable: U2NET_HOME, U2NET_PLUGINS, U2NET_CATALOG_URL,
    U2NET_TRACKING_URI.

    \b
    Examples:
      u2net info
      u2net info --json
    """
    from u2net_platform import __version__
    from u2net_platform.settings import Settings, without_password

    settings = Settings()
    places = {
        "home": settings.home,
        "plugins": settings.plugins_dir,
        "catalog": without_password(settings.database_url),
        "tracking": without_password(settings.mlflow_uri),
        "prepared": settings.prepared_dir,
        "weights": settings.weights_dir,
        "runs": settings.runs_dir,
    }
    emit({"version": __version__, "settings": places}, _render_info)


def doctor(_json: Json = False) -> None:
    """Examine this machine: packages, devices, disk, catalog, tracking, plugins.

    Ends with exit code 1 if something fails; each finding names its remedy.

    \b
    Examples:
      u2net doctor
      u2net doctor --json
    """
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.doctor import examine

    findings = examine(Settings())
    failed = [finding.subject for finding in findings if finding.status == "fail"]
    failure = U2NetError(f"not fit to work: {', '.join(failed)}", "Follow the remedies above.")
    emit({"findings": findings}, render_findings, failure if failed else None)


def _render_info(data: dict[str, Any]) -> Table:
    table = _plain_table()
    table.add_row("version", data["version"])
    for key, value in data["settings"].items():
        table.add_row(key, str(value))
    return table


def render_findings(data: dict[str, Any]) -> Table:
    table = _plain_table()
    for finding in data["findings"]:
        table.add_row(finding.status, finding.subject, finding.detail)
        if finding.remedy:
            table.add_row("", "", f"→ {finding.remedy}")
    return table


def _plain_table() -> Table:
    from rich.table import Table

    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
