"""`u2net federation`: the coordinator of sites on other machines."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from u2net_platform.cli import federate
from u2net_platform.cli.output import Json, emit, emit_rows

if TYPE_CHECKING:
    from u2net_platform.federation.superlink import SuperLink

app = typer.Typer(
    help="The coordinator of sites on other machines: TLS, keys, runs.", no_args_is_help=True
)


@app.command()
def init(
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address that sites use; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of Flower, on loopback.")] = 18000,
    public_port: Annotated[int, typer.Option(min=1, max=65535, help="Of nginx.")] = 8443,
    _json: Json = False,
) -> None:
    """Make the coordinator's folder: authority, certificate, bundle and a configuration of nginx.

    \b
    Examples:
      u2net federation init --host federation.example.org
    """
    from u2net_platform.federation.superlink import init_superlink
    from u2net_platform.settings import Settings

    made = init_superlink(Settings(), tuple(host or ()), port, public_port)
    emit(
        made,
        lambda _: (
            f"{made.folder} is the coordinator's folder.\n"
            f"Give sites {made.folder / 'ca.crt'}, and let them approve {made.bundle}\n"
            f"Let nginx read {made.nginx}"
        ),
    )


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The site's name.")],
    key: Annotated[Path, typer.Option(exists=True, help="Its site.key.pub.")],
    _json: Json = False,
) -> None:
    """Let the holder of a key take part as a site.

    \b
    Examples:
      u2net federation add north --key north.pub
    """
    _superlink().add_site(name, key)
    emit({"site": name}, lambda _: f"{name} may take part")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The site's name.")], _json: Json = False
) -> None:
    """Let a site take part no more.

    \b
    Examples:
      u2net federation remove north
    """
    _superlink().remove_site(name)
    emit({"site": name}, lambda _: f"{name} takes part no more")


@app.command()
def sites(_json: Json = False) -> None:
    """List the sites that may take part, and whether they are there.

    \b
    Examples:
      u2net federation sites
    """
    states = _superlink().states()
    emit_rows(
        [{"site": name, "state": state} for name, state in states.items()],
        {"site": itemgetter("site"), "state": itemgetter("state")},
        as_csv=False,
    )


@app.command()
def start(_json: Json = False) -> None:
    """Bring up Flower's SuperLink on loopback; it stays after this command.

    \b
    Examples:
      u2net federation start
    """
    superlink = _superlink()
    superlink.start()
    data = {"port": superlink.config.port, "sites": superlink.sites, "log": superlink.log}
    emit(data, lambda _: f"The SuperLink listens on 127.0.0.1:{superlink.config.port}")


@app.command()
def renew(_json: Json = False) -> None:
    """Make a new certificate of the server for two more years; sites need nothing new.

    \b
    Examples:
      u2net federation renew
    """
    ends = _superlink().renew()
    emit(
        {"ends": ends},
        lambda _: (
            f"The certificate ends on {ends:%Y-%m-%d}. Now let nginx and the SuperLink read it:"
            " nginx -s reload; u2net federation stop; u2net federation start"
        ),
    )


@app.command()
def stop(
    run: Annotated[str | None, typer.Argument(help="Only this run.")] = None,
    _json: Json = False,
) -> None:
    """End a run, or the SuperLink with all of them. They can be resumed.

    \b
    Examples:
      u2net federation stop 20260131-120000-1a2b
      u2net federation stop
    """
    superlink = _superlink()
    if run is not None:
        superlink.stop_run(run)
        emit({"stopped": run}, lambda _: f"{run} is stopped: u2net federation resume {run}")
        return
    ran = superlink.stop()
    emit({"stopped": ran}, lambda _: "The SuperLink is down" if ran else "No SuperLink runs here")


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="A run that was stopped or has failed.")],
    detach: federate.Detach = False,
    _json: Json = False,
) -> None:
    """Go on with a run from its last round.

    \b
    Examples:
      u2net federation resume 20260131-120000-1a2b
    """
    federate.run_by_flower(run, detach)


@app.command()
def logs(run: Annotated[str, typer.Argument(help="A run.")], _json: Json = False) -> None:
    """What the coordinator's part of a run has written.

    \b
    Examples:
      u2net federation logs 20260131-120000-1a2b
    """
    emit({"log": _superlink().logs(run)}, lambda data: data["log"])


app.command("run")(federate.run_elsewhere)
app.command("status")(federate.status)


def _superlink() -> SuperLink:
    from u2net_platform.federation.superlink import SuperLink
    from u2net_platform.settings import Settings

    return SuperLink(Settings())
