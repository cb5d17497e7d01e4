"""`u2net federate`: train over sites that keep their data."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
    with_options,
)

if TYPE_CHECKING:
    from rich.table import Table

    from u2net_platform.catalog.records import RoundRecord
    from u2net_platform.federation.coordinator import Federated
    from u2net_platform.federation.request import FederationRequest
    from u2net_platform.federation.status import RunStatus
    from u2net_platform.settings import Settings

app = typer.Typer(help="Train over sites that keep their data.", no_args_is_help=True)

WATCH_SECONDS = 2.0


Quorum = Annotated[
    int | None, typer.Option(min=1, help="Contributions a round needs; at first, more than half.")
]
Attempts = Annotated[int | None, typer.Option(min=1, help="Of a round below its quorum.")]
RoundMinutes = Annotated[
    float | None, typer.Option(min=0.01, callback=finite, help="A site's time for a round.")
]
WaitMinutes = Annotated[
    float | None,
    typer.Option(min=0, callback=finite, help="For sites that are away, before a round."),
]


class WeighBy(StrEnum):
    examples = "examples"
    steps = "steps"
    equal = "equal"


@dataclass(frozen=True)
class FederationOptions:
    """How sites train together."""

    base: Annotated[
        str | None, typer.Option("--from", help="Begin with the backbone of this version.")
    ] = None
    rounds: Annotated[int, typer.Option(min=1, help="How often the sites' updates meet.")] = 50
    cycles: Annotated[int, typer.Option(min=1, help="Cycles of a site in a round.")] = 10
    recipe: RecipeName = "default"
    batch_voxels: BatchVoxels = None
    assignments: Assignments = None
    seed: Seed = 0
    fold: Fold = 0
    quorum: Quorum = None
    attempts: Attempts = 3
    weigh_by: Annotated[WeighBy, typer.Option(help="What a site counts with.")] = WeighBy.steps
    cap: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="A site counts with no more than this; unless given, than with the steps of five"
            " domains, or with 1000 examples.",
        ),
    ] = None
    momentum: Annotated[
        float, typer.Option(min=0, max=0.999, callback=finite, help="Of the server; 0 is none.")
    ] = 0.0
    server_rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=100,
            callback=finite,
            help="Times the mean; 1 is FedAvg. By default 1 if all hold the same domains, to 3.",
        ),
    ] = None
    proximal: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="FedProx's mu: pulls sites towards the backbone."
        ),
    ] = 0.0
    largest_update: Annotated[
        float,
        typer.Option(
            min=0.001, callback=finite, help="Norm of an update over that of the weights."
        ),
    ] = 2.0
    round_minutes: RoundMinutes = 60
    wait_minutes: WaitMinutes = 5

    def new_run(self, settings: Settings, sites: tuple[str, ...]) -> str:
        """Write down what is to be done; returns the id of the run.

        Raises:
            InvalidFederation, InvalidRecipe, UnknownDomain, UnknownRecord
        """
        from u2net_platform.federation.request import federated_recipe, new_run

        most = 5 * self.cycles if self.weigh_by is WeighBy.steps else 1000
        rules = {
            "weigh_by": self.weigh_by.value, "cap": self.cap or most,
            "server_momentum": self.momentum, "server_rate": self.server_rate,
            "largest_update": self.largest_update,
        }  # fmt: skip
        same = (
            "base", "rounds", "cycles", "seed", "fold", "attempts", "proximal", "round_minutes",
            "wait_minutes",
        )  # fmt: skip
        request = _request(
            sites=sites,
            recipe=federated_recipe(self.recipe, self.assignments or (), self.batch_voxels),
            quorum=self.quorum or len(sites) // 2 + 1,
            rules=rules,
            **{name: getattr(self, name) for name in same},
        )
        return new_run(settings, request)


@app.command()
@with_options
def run(
    context: typer.Context,
    sites: Annotated[Path, typer.Option(help="A folder of sites; all run in this process.")] = Path(
        "sites"
    ),
    resume: Annotated[str | None, typer.Option(help="Go on with this run instead.")] = None,
    *,
    options: FederationOptions,
    _json: Json = False,
) -> None:
    """Train one backbone over sites: each trains its own domains, and sends its update alone.

    \b
    Examples:
      u2net federate run --sites sites/ --rounds 50 --cycles 10
      u2net federate run --sites sites/ --momentum 0.9 --proximal 0.01
      u2net federate run --sites sites/ --set augmentation.elastic=0
      u2net federate run --resume 20260131-120000-1a2b
      u2net federate run --resume 20260131-120000-1a2b --quorum 1
    """
    from u2net_platform.federation.coordinator import Coordinator
    from u2net_platform.federation.local import LocalGrid
    from u2net_platform.federation.request import CHANGEABLE, change
    from u2net_platform.federation.site_folder import find_sites
    from u2net_platform.settings import Settings

    settings, found = Settings(), find_sites(sites)
    if resume:
        refuse(given(context, "resume", "sites", *CHANGEABLE), "a run goes on as it began")
        changes = {name: getattr(options, name) for name in given(context) if name in CHANGEABLE}
        change(settings, resume, changes)
    run_id = resume or options.new_run(settings, tuple(found))
    talk(f"Run {run_id}; go on with: u2net federate run --sites {sites} --resume {run_id}")
    done = Coordinator(settings, run_id, LocalGrid(found), talk, tell_round).go()
    emit(done, _finished)


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
        with Live(rounds_table(found), console=console(stderr=True)) as live:
            while found.status in ("running", "waiting for sites"):
                time.sleep(WATCH_SECONDS)
                found = read_status(Settings(), found.run)
                live.update(rounds_table(found))
    emit(found, rounds_table)
    tell_unpublished(found)


def tell_unpublished(found: RunStatus) -> None:
    if found.unpublished:
        talk(
            f"{', '.join(found.unpublished)}: nothing is published there yet; to ask again, once"
            f" they are there: u2net federation resume {found.run}"
        )


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


def tell_round(done: RoundRecord) -> None:
    parts = [f"{one.site} {'+' if one.accepted else one.reason}" for one in done.contributions]
    talk(f"round {done.number} {done.status}, {done.seconds:.1f} s: {', '.join(parts)}")


def rounds_table(found: Any) -> Table:
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
