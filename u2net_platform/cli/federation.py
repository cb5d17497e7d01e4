"""`u2net federation`: the coordinator of sites on other machines."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from u2net_platform.cli import federate
from u2net_platform.cli.federate import FederationOptions
from u2net_platform.cli.output import Json, emit, emit_rows, talk
from u2net_platform.cli.run_options import with_options

if TYPE_CHECKING:
    from u2net_platform.federation.status import RunStatus
    from u2net_platform.federation.superlink import SuperLink
    from u2net_platform.settings import Settings

FLOWER_SECONDS = 20.0  # between questions to Flower, whose command line takes a second each

Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")]

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
    from u2net_platform.federation.coordinator_folder import init_superlink
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
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Its site.key.pub.")],
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
    from u2net_platform.federation.coordinator_folder import bundle_digest

    superlink = _superlink()
    superlink.start()
    port, bundle = superlink.config.port, bundle_digest(superlink.folder)
    data = {"port": port, "sites": superlink.sites, "log": superlink.log, "bundle": bundle}
    emit(data, lambda _: f"The SuperLink listens on 127.0.0.1:{port}\nSites approve {bundle}")


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
@with_options
def run(
    detach: Detach = False,
    *,
    options: FederationOptions,
    _json: Json = False,
) -> None:
    """Train one backbone over sites on other machines: each trains its own domains.

    \b
    Examples:
      u2net federation run --rounds 50 --cycles 10
      u2net federation run --momentum 0.9 --proximal 0.01 --detach
      u2net federation resume 20260131-120000-1a2b
    """
    from u2net_platform.errors import FlowerFailed
    from u2net_platform.settings import Settings

    settings = Settings()
    if not _superlink().running:  # else the run would be there, and wait for ever
        raise FlowerFailed("Flower's SuperLink does not run", "Start it: u2net federation start")
    _run_by_flower(options.new_run(settings, _known_sites(settings)), detach)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="A run that was stopped or has failed.")],
    quorum: federate.Quorum = None,
    attempts: federate.Attempts = None,
    round_minutes: federate.RoundMinutes = None,
    wait_minutes: federate.WaitMinutes = None,
    detach: Detach = False,
    _json: Json = False,
) -> None:
    """Go on with a run from its last round, as it began unless an option says otherwise.

    \b
    Examples:
      u2net federation resume 20260131-120000-1a2b
      u2net federation resume 20260131-120000-1a2b --quorum 2 --wait-minutes 0   # a site is gone
    """
    from u2net_platform.federation.request import change
    from u2net_platform.settings import Settings

    options = {
        "quorum": quorum, "attempts": attempts, "round_minutes": round_minutes,
        "wait_minutes": wait_minutes,
    }  # fmt: skip
    if changes := {name: value for name, value in options.items() if value is not None}:
        change(Settings(), run, changes)
    _run_by_flower(run, detach)


@app.command()
def logs(run: Annotated[str, typer.Argument(help="A run.")], _json: Json = False) -> None:
    """What the coordinator's part of a run has written.

    \b
    Examples:
      u2net federation logs 20260131-120000-1a2b
    """
    emit({"log": _superlink().logs(run)}, lambda data: data["log"])


app.command("status")(federate.status)


def _superlink() -> SuperLink:
    from u2net_platform.federation.superlink import SuperLink
    from u2net_platform.settings import Settings

    return SuperLink(Settings())


def _run_by_flower(run_id: str, detach: bool) -> None:
    """Hand a run to Flower, and show its rounds until it ends."""
    from u2net_platform.errors import FlowerFailed, Interrupted
    from u2net_platform.federation.status import read_status
    from u2net_platform.federation.superlink import SuperLink
    from u2net_platform.settings import Settings

    settings = Settings()
    before = read_status(settings, run_id)  # Flower starts whatever it is handed
    superlink = SuperLink(settings)
    started = datetime.now(UTC)
    number = _at_work(settings, superlink, run_id)
    if number is None:
        number = superlink.submit(run_id)
    else:
        talk(f"{run_id} is at work already, and is watched")
    talk(f"Run {run_id}; go on with: u2net federation resume {run_id}")
    if not detach:
        try:
            _follow(settings, before, number, started)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{run_id} goes on at the SuperLink; only its watching was stopped",
                f"See: u2net federation status {run_id}; end it: u2net federation stop {run_id}",
            ) from None
    found = read_status(settings, run_id)
    if not detach and found.status != "completed":
        raise FlowerFailed(
            f"{run_id} has ended after {found.round} of {found.rounds_wanted} rounds",
            f"See: u2net federation logs {run_id}; then: u2net federation resume {run_id}",
        )
    emit(found, federate.rounds_table)
    federate.tell_unpublished(found)


def _at_work(settings: Settings, superlink: SuperLink, run_id: str) -> int | None:
    """Flower's number of a run that goes on; one that was just stopped is waited for."""
    from u2net_platform.files import is_held
    from u2net_platform.workflows.request import LOCK_FILE

    until = time.monotonic() + FLOWER_SECONDS
    while is_held(settings.runs_dir / run_id / LOCK_FILE):
        number = superlink.number_of(run_id)
        ends = superlink.flower_status(number).startswith("finished")
        if not ends or time.monotonic() > until:
            return number
        time.sleep(federate.WATCH_SECONDS)
    return None


def _follow(settings: Settings, told: RunStatus, number: int, started: datetime) -> None:
    """Tell what is new of a run that was started then, until it ends; Flower knows its number."""
    from u2net_platform.federation.status import read_status
    from u2net_platform.federation.superlink import SuperLink

    ended, asked = False, time.monotonic()
    while not ended:
        time.sleep(federate.WATCH_SECONDS)
        # Flower knows of a coordinator that was killed, and whether one that has come to an end by
        # the catalog has written down all.
        ends = told.ended_at is not None and told.ended_at > started
        if ends or time.monotonic() - asked > FLOWER_SECONDS:
            ended = SuperLink(settings).flower_status(number).startswith("finished")
            asked = time.monotonic()
        found = read_status(settings, told.run)
        for note in found.notes[len(told.notes) :]:
            talk(note)
        for one in found.rounds[len(told.rounds) :]:
            federate.tell_round(one)
        told = found


def _known_sites(settings: Settings) -> tuple[str, ...]:
    from u2net_platform.errors import InvalidFederation
    from u2net_platform.federation.superlink import SuperLink

    names = SuperLink(settings).sites
    if not names:
        raise InvalidFederation("No site is known", "Add one: u2net federation add NAME --key FILE")
    return names
