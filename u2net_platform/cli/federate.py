"""`u2net federate`: train over sites that keep their data."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.output import Json, console, emit, talk
from u2net_platform.cli.run_options import (
    Assignments,
    BatchVoxels,
    Fold,
    RecipeName,
    Seed,
    finite,
    given,
    refuse,
)

if TYPE_CHECKING:
    from rich.table import Table

    from u2net_platform.catalog.records import RoundRecord
    from u2net_platform.federation.coordinator import Federated
    from u2net_platform.federation.request import FederationRequest
    from u2net_platform.federation.superlink import SuperLink
    from u2net_platform.settings import Settings

app = typer.Typer(help="Train over sites that keep their data.", no_args_is_help=True)

WATCH_SECONDS = 2.0
FLOWER_SECONDS = 20.0  # between questions to Flower, whose command line takes a second each


Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")]


class WeighBy(StrEnum):
    examples = "examples"
    steps = "steps"
    equal = "equal"


@app.command()
def run(
    context: typer.Context,
    sites: Annotated[Path, typer.Option(help="A folder of sites; all run in this process.")] = Path(
        "sites"
    ),
    elsewhere: Annotated[bool, typer.Option("--deployment", hidden=True)] = False,
    detach: Detach = False,
    resume: Annotated[str | None, typer.Option(help="Go on with this run instead.")] = None,
    base: Annotated[
        str | None, typer.Option("--from", help="Begin with the backbone of this version.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often the sites' updates meet.")] = 50,
    cycles: Annotated[int, typer.Option(min=1, help="Cycles of a site in a round.")] = 10,
    recipe: RecipeName = "default",
    batch_voxels: BatchVoxels = None,
    assignments: Assignments = None,
    seed: Seed = 0,
    fold: Fold = 0,
    quorum: Annotated[
        int | None,
        typer.Option(min=1, help="Contributions a round needs; more than half unless given."),
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Of a round below its quorum.")] = 3,
    weigh_by: Annotated[WeighBy, typer.Option(help="What a site counts with.")] = WeighBy.steps,
    cap: Annotated[int, typer.Option(min=1, help="A site counts with no more than this.")] = 1000,
    momentum: Annotated[
        float, typer.Option(min=0, max=0.999, callback=finite, help="Of the server; 0 is none.")
    ] = 0.0,
    server_rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=100,
            callback=finite,
            help="Times the mean; 1 is FedAvg. By default 1 if all hold the same domains, to 3.",
        ),
    ] = None,
    proximal: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="FedProx's mu: pulls sites towards the backbone."
        ),
    ] = 0.0,
    largest_update: Annotated[
        float,
        typer.Option(
            min=0.001, callback=finite, help="Norm of an update over that of the weights."
        ),
    ] = 2.0,
    round_minutes: Annotated[
        float, typer.Option(min=0.01, callback=finite, help="A site's time for a round.")
    ] = 60,
    wait_minutes: Annotated[
        float, typer.Option(min=0, callback=finite, help="For sites that are away, before a round.")
    ] = 5,
    _json: Json = False,
) -> None:
    """Train one backbone over sites: each trains its own domains, and sends its update alone.

    \b
    Examples:
      u2net federate run --sites sites/ --rounds 50 --cycles 10
      u2net federate run --sites sites/ --momentum 0.9 --proximal 0.01
      u2net federate run --sites sites/ --set augmentation.elastic=0
      u2net federate run --resume 20260131-120000-1a2b
      u2net federation run --rounds 50 --cycles 10
    """
    from u2net_platform.federation.request import federated_recipe, new_run
    from u2net_platform.federation.site_folder import find_sites
    from u2net_platform.settings import Settings

    if resume:
        free = ("resume", "sites", "elsewhere", "detach")
        refuse(given(context, *free), "a run goes on as it began")
    idle = "sites" if elsewhere else "detach"
    unused = {name: option for name, option in given(context).items() if name == idle}
    refuse(unused, f"of sites {'in a folder' if elsewhere else 'on other machines'} alone")
    settings = Settings()
    found = {} if elsewhere else find_sites(sites)
    names = _known_sites(settings) if elsewhere else tuple(found)
    run_id = resume or new_run(
        settings,
        _request(
            sites=names, recipe=federated_recipe(recipe, assignments or (), batch_voxels),
            base=base, rounds=rounds, cycles=cycles, seed=seed, fold=fold, attempts=attempts,
            quorum=quorum or len(names) // 2 + 1, proximal=proximal,
            round_minutes=round_minutes, wait_minutes=max(wait_minutes, 1e-3),
            rules={
                "weigh_by": weigh_by.value, "cap": cap, "server_momentum": momentum,
                "server_rate": server_rate, "largest_update": largest_update,
            },
        ),
    )  # fmt: skip
    if elsewhere:
        run_by_flower(run_id, detach)
        return
    from u2net_platform.federation.coordinator import Coordinator
    from u2net_platform.federation.local import LocalGrid

    talk(f"Run {run_id}; go on with: u2net federate run --sites {sites} --resume {run_id}")
    done = Coordinator(settings, run_id, LocalGrid(found), talk, _tell_round).go()
    emit(done, _finished)


@functools.wraps(run)
def run_elsewhere(**arguments: Any) -> None:
    run(**arguments | {"elsewhere": True})


def run_by_flower(run_id: str, detach: bool) -> None:
    """Hand a run to Flower, and show its rounds until it ends."""
    from u2net_platform.errors import FlowerFailed, Interrupted
    from u2net_platform.federation.request import request_of
    from u2net_platform.federation.status import read_status
    from u2net_platform.federation.superlink import SuperLink
    from u2net_platform.settings import Settings

    settings = Settings()
    request_of(settings, run_id)  # Flower starts whatever it is handed
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
            _follow(settings, run_id, number, started)
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
    emit(found, _table)


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
        time.sleep(WATCH_SECONDS)
    return None


def _follow(settings: Settings, run_id: str, number: int, started: datetime) -> None:
    """Tell each round of a run that was started then, until it ends; Flower knows its number."""
    from u2net_platform.federation.status import read_status
    from u2net_platform.federation.superlink import SuperLink

    told = len(read_status(settings, run_id).rounds)
    ended, asked = False, time.monotonic()
    while not ended:
        time.sleep(WATCH_SECONDS)
        found = read_status(settings, run_id)
        for one in found.rounds[told:]:
            _tell_round(one)
        told = len(found.rounds)
        # The catalog says how a run ends; a coordinator that was killed says nothing any more.
        ended = found.ended_at is not None and found.ended_at > started
        if not ended and time.monotonic() - asked > FLOWER_SECONDS:
            ended = SuperLink(settings).flower_status(number).startswith("finished")
            asked = time.monotonic()


def _known_sites(settings: Settings) -> tuple[str, ...]:
    from u2net_platform.errors import InvalidFederation
    from u2net_platform.federation.superlink import SuperLink

    names = SuperLink(settings).sites
    if not names:
        raise InvalidFederation("No site is known", "Add one: u2net federation add NAME --key FILE")
    return names


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="A run; the latest by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it up to date.")] = False,
    _json: Json = False,
) -> None:
    """Rounds of a federated run: who contributed, who was refused and why, bytes and time.

    \b
    Examples:
      u2net federate status
      u2net federate status 20260131-120000-1a2b --watch
      u2net federation status --json
    """
    from rich.live import Live

    from u2net_platform.federation.status import read_status
    from u2net_platform.settings import Settings

    found = read_status(Settings(), run)
    if watch:
        with Live(_table(found), console=console(stderr=True)) as live:
            while found.status in ("running", "waiting for sites"):
                time.sleep(WATCH_SECONDS)
                found = read_status(Settings(), found.run)
                live.update(_table(found))
    emit(found, _table)


def _request(**fields: Any) -> FederationRequest:
    from pydantic import ValidationError

    from u2net_platform.domains.spec import list_faults
    from u2net_platform.errors import InvalidFederation
    from u2net_platform.federation.request import FederationRequest

    try:
        return FederationRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidFederation(
            f"This federation has faults:\n{list_faults(error)}", "See: u2net federate run --help"
        ) from error


def _tell_round(done: RoundRecord) -> None:
    parts = [f"{one.site} {'+' if one.accepted else one.reason}" for one in done.contributions]
    talk(f"round {done.number} {done.status}, {done.seconds:.1f} s: {', '.join(parts)}")


def _table(found: Any) -> Table:
    from rich.table import Table

    title = f"{found.run}: {found.status}, {found.round} of {found.rounds_wanted} rounds"
    table = Table(
        "round", "status", "site", "", "cases", "steps", "norm", "MB in", "MB out", "s",
        title=title, title_justify="left",
    )  # fmt: skip
    for one in found.rounds:
        for sent in one.contributions:
            table.add_row(
                f"{one.number}.{one.attempt}",
                one.status,
                sent.site,
                "taken" if sent.accepted else sent.reason,
                str(sent.examples or "-"),
                str(sent.steps or "-"),
                "-" if sent.norm is None else f"{sent.norm:.3f}",
                f"{sent.bytes_up / 1e6:.2f}",
                f"{sent.bytes_down / 1e6:.2f}",
                f"{sent.seconds:.1f}",
            )
    return table


def _finished(done: Federated) -> str:
    lines = [f"{done.run.id} is completed after {done.run.step} rounds"]
    lines += [f"{one.reference} is published here" for one in done.versions]
    for site, published in done.at_sites.items():
        lines += [
            f"{site}: {name} is {reference} there"
            + (f", validation Dice {published.dice[name]:.3f}" if name in published.dice else "")
            for name, reference in published.versions.items()
        ]
    return "\n".join(lines)
