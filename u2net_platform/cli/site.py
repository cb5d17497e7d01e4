"""`u2net site`: a site of a federation, from its side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from u2net_platform.cli.output import Json, emit

app = typer.Typer(help="A site of a federation: its folder, keys and start.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The site's folder.")]


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The site's name, as the coordinator knows it.")],
    folder: Annotated[Path | None, typer.Option(help="Its folder; sites/NAME by default.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="A domain and its data, as heart=/data/heart; may be repeated."),
    ] = None,
    coordinator: Annotated[str | None, typer.Option(help="host:port of the coordinator.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The coordinator's ca.crt.")] = None,
    _json: Json = False,
) -> None:
    """Make a site's folder: site.toml and a pair of keys. The public one is for the coordinator.

    \b
    Examples:
      u2net site init north --domain heart=/data/Task02_Heart --domain spleen=/data/Task09_Spleen
    """
    from u2net_platform.federation.site_folder import init_site

    domains = {}
    for text in domain or []:
        key, equals, path = text.partition("=")
        if not equals or not path:
            raise typer.BadParameter(f"{text!r} is not NAME=FOLDER")
        domains[key] = Path(path)
    place = folder or Path("sites") / name
    public = init_site(place, name, domains, coordinator, ca)
    emit(
        {"site": name, "folder": place, "public_key": public},
        lambda _: f"{place} is site {name}. Give {public} to the coordinator; nothing else.",
    )


@app.command()
def approve(
    folder: Folder,
    bundle: Annotated[
        str, typer.Argument(help="SHA-256, as the coordinator's `init` and `start` say.")
    ],
    _json: Json = False,
) -> None:
    """Let a bundle run here: it names code that is installed at the site, and holds none.

    \b
    Examples:
      u2net site approve sites/north 3b5c...
    """
    from u2net_platform.federation.site_folder import approve as let_run

    let_run(folder, bundle)
    emit({"folder": folder, "bundle": bundle}, lambda _: f"{bundle} may run at {folder}")


@app.command()
def key(folder: Folder, _json: Json = False) -> None:
    """Make a new pair of keys, where the old one was removed, or others may know it.

    The coordinator removes the site, and adds it again with the new public key.

    \b
    Examples:
      u2net site key sites/north
    """
    from u2net_platform.federation.site_folder import renew_key

    public = renew_key(folder)
    emit({"folder": folder, "public_key": public}, lambda _: f"Give {public} to the coordinator.")


@app.command()
def check(folder: Folder, _json: Json = False) -> None:
    """Tell whether the site could take part now: keys, coordinator, device, plugins, data.

    Ends with exit code 10 if something fails; each finding names its remedy.

    \b
    Examples:
      u2net site check sites/north
    """
    from u2net_platform.cli.info import render_findings
    from u2net_platform.errors import InvalidSite
    from u2net_platform.federation.preflight import preflight

    findings = preflight(folder)
    failed = [one.subject for one in findings if one.status == "fail"]
    failure = InvalidSite(f"not ready: {', '.join(failed)}", "Follow the remedies above.")
    emit({"findings": findings}, render_findings, failure if failed else None)


@app.command()
def start(folder: Folder, _json: Json = False) -> None:
    """Take part: connect to the coordinator and work until this is ended.

    \b
    Examples:
      u2net site start sites/north
    """
    import os

    from u2net_platform.federation.site_folder import start_command

    command, environment = start_command(folder)
    # In place of this process: who ends it ends the SuperNode.
    os.execvpe(command[0], command, environment)
