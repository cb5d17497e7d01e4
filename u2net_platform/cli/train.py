"""`u2net prepare`, `u2net train` and `u2net adapt`: from data to published versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.home import open_home
from u2net_platform.cli.output import Json, emit, progress, table_of
from u2net_platform.cli.run_options import (
    BatchVoxels,
    Fold,
    RecipeName,
    RunOptions,
    finite,
    given,
    refuse,
    with_options,
)
from u2net_platform.errors import Interrupted

if TYPE_CHECKING:
    from rich.table import Table

    from u2net_platform.data.plan import Plan
    from u2net_platform.training.trainer import Watcher
    from u2net_platform.workflows.request import Request
    from u2net_platform.workflows.train import Finished


class Mode(StrEnum):
    universal = "universal"
    shared = "shared"
    independent = "independent"


class Architecture(StrEnum):
    lean = "lean"
    compact = "compact"
    paper = "paper"


Minutes = Annotated[
    float | None,
    typer.Option(min=0.1, callback=finite, help="Fix the cycles so that they fit into this time."),
]
VERSIONS_OWN = ("mode", "architecture")
Resume = Annotated[str | None, typer.Option(help="Go on with this run instead.")]


def prepare(
    domain: Annotated[str, typer.Argument(help="A domain that was added.")],
    data: Annotated[
        Path | None, typer.Option(help="The data set, if not where the catalog has it.")
    ] = None,
    recipe: RecipeName = "default",
    batch_voxels: BatchVoxels = None,
    fold: Fold = 0,
    _json: Json = False,
) -> None:
    """Plan a domain and prepare its cases; training does the same where it is missing.

    \b
    Examples:
      u2net prepare heart
      u2net prepare heart --data Task02_Heart --batch-voxels 4194304
    """
    from u2net_platform.data.splits import splitter
    from u2net_platform.training.recipe import Recipe
    from u2net_platform.workflows.add_domain import data_dir_of, find_added
    from u2net_platform.workflows.prepare import prepare_domain

    settings, catalog = open_home()
    plugin = find_added(domain, settings, catalog).working
    directory = data_dir_of(domain, catalog, data)
    chosen = Recipe.load(recipe, batch_voxels=batch_voxels)
    with progress(f"Preparing {domain}") as done:
        ready = prepare_domain(
            settings.prepared_dir, plugin, directory, splitter(fold), chosen.batch_voxels, done
        )
    split = {part: len(ids) for part, ids in vars(ready.split).items()}
    emit({"domain": domain, "split": split, "plan": ready.plan}, _prepared)


@with_options
def train(
    context: typer.Context,
    domains: Annotated[
        list[str] | None, typer.Argument(help="Domains that were added, with their data.")
    ] = None,
    resume: Resume = None,
    base: Annotated[
        str | None,
        typer.Option("--from", help="Go on from a version's network, which makes a new backbone."),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="What is shared; independent trains one network a domain.")
    ] = Mode.universal,
    architecture: Annotated[Architecture, typer.Option()] = Architecture.lean,
    minutes: Minutes = None,
    *,
    options: RunOptions,
    _json: Json = False,
) -> None:
    """Train one network on several domains, a batch of one at each step, and publish versions.

    Ctrl-C writes a checkpoint first. A checkpoint is also written every 90 seconds.

    \b
    Examples:
      u2net train heart hippocampus --minutes 30
      u2net train heart hippocampus prostate --recipe paper --architecture paper --device cuda
      u2net train heart hippocampus spleen --from heart:3 --set temperature=2
      u2net train --resume 20260131-120000-1a2b
    """
    from u2net_platform.workflows.add_domain import require_trainable
    from u2net_platform.workflows.request import Request

    names = _exactly_one(domains or [], resume)
    asked = given(context, "domains", "resume", "device", "workers")
    if resume:
        refuse(asked, "a run goes on as it began, but for --device and --workers")
        place = given(context).keys() & {"device", "workers"}
        _emit([_resumed(resume, {name: options.place[name] for name in place})])
        return
    if base:
        fixed = {name: option for name, option in asked.items() if name in VERSIONS_OWN}
        refuse(fixed, "with --from, it is that of the version")
    _one_length(context)
    recipe = options.load_recipe()
    groups = [[name] for name in names] if mode is Mode.independent else [names]
    requests = [
        Request(
            domains=tuple(group),
            recipe=recipe,
            mode=mode.value,
            architecture=architecture.value,
            base=base,
            frozen=False,
            **options.place,
            minutes=minutes / len(groups) if minutes else None,
        )
        for group in groups
    ]
    if len(requests) > 1:
        require_trainable(*open_home(), names)  # before hours go into the first
    done = []
    for at, request in enumerate(requests, start=1):
        try:
            done.append(_started(request))
        except Interrupted as error:
            if rest := " ".join(names[at:]):
                error.hint += f"; then train {rest} as you did"
            raise
    _emit(done)


@with_options
def adapt(
    context: typer.Context,
    domain: Annotated[str, typer.Argument(help="The new domain, added and with its data.")],
    base: Annotated[
        str, typer.Option("--from", help="A version of a universal network: heart, heart:3.")
    ],
    minutes: Minutes = None,
    warm_start: Annotated[
        str,
        typer.Option(
            help="Begin with the adapter of this version; auto: of the nearest domain; none."
        ),
    ] = "none",
    *,
    options: RunOptions,
    _json: Json = False,
) -> None:
    """Train a new domain on the frozen backbone of a version: older domains stay as they are.

    \b
    Examples:
      u2net adapt spleen --from heart:3
      u2net adapt spleen --from heart --minutes 10 --warm-start auto
    """
    from u2net_platform.workflows.request import Request

    _one_length(context)
    recipe = options.load_recipe()
    request = Request(
        domains=(domain,),
        recipe=recipe,
        base=base,
        warm_start=warm_start,
        **options.place,
        minutes=minutes,
    )
    _emit([_started(request)])


def _exactly_one(names: list[str], resume: str | None) -> list[str]:
    if bool(names) == bool(resume):
        raise typer.BadParameter("name domains to train, or a run with --resume")
    if len(set(names)) < len(names):
        raise typer.BadParameter("a domain is named twice")
    return names


def _one_length(context: typer.Context) -> None:
    asked = given(context)
    fixed = {name: option for name, option in asked.items() if name == "cycles"}
    for text in context.params["assignments"] or ():
        if text.partition("=")[0].strip() == "cycles":
            fixed["assignments"] = f"--set {text}"
    refuse(fixed if "minutes" in asked else {}, "their number follows from --minutes")


def _started(request: Request) -> Finished:
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.train import start

    with _display() as (watcher, on_prepare):
        return start(Settings(), request, watcher, on_prepare)


def _resumed(run_id: str, place: Mapping[str, Any]) -> Finished:
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.train import resume

    with _display() as (watcher, on_prepare):
        return resume(Settings(), run_id, watcher, on_prepare, place)


@contextmanager
def _display() -> Iterator[tuple[Watcher, Callable[[str, str], None]]]:
    from u2net_platform.cli.training_display import training_display

    with training_display() as display:
        yield display, display.on_prepare


def _emit(finished: list[Finished]) -> None:
    data = {
        "runs": [one.run for one in finished],
        "versions": [version for one in finished for version in one.versions],
    }
    emit(data, _versions)


def _versions(data: dict[str, Any]) -> Table:
    from u2net_platform.cli.model import VERSIONS

    return table_of(data["versions"], VERSIONS)


def _prepared(data: dict[str, Any]) -> Table:
    table = plan_table(data["domain"], data["plan"])
    for part, cases in data["split"].items():
        table.add_row(f"{part} cases", str(cases))
    return table


def plan_table(domain: str, plan: Plan) -> Table:
    """The figures of a plan, one a row."""
    from rich.table import Table

    table = Table("", domain, show_header=True)
    table.add_row("spacing z y x, mm", " ".join(f"{side:g}" for side in plan.spacing_zyx_mm))
    for key in ("shape_zyx", "patch_zyx"):
        table.add_row(key.replace("_zyx", " z y x"), " ".join(map(str, getattr(plan, key))))
    pools = [sum(stride[axis] == 2 for stride in plan.strides_zyx) for axis in range(3)]
    table.add_row("poolings z y x", " ".join(map(str, pools)))
    table.add_row("batch", str(plan.batch_size))
    return table
