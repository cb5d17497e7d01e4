"""`u2net demo`: the whole main job, told while it happens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from u2net_platform.cli.output import Json, emit
from u2net_platform.cli.run_options import Seed, finite
from u2net_platform.errors import Interrupted

if TYPE_CHECKING:
    from rich.console import Group

    from u2net_platform.workflows.demo import DemoResult

MINUTES = {True: 3.0, False: 20.0}  # for phantoms, for real data


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="A folder of MSD or nnU-Net folders, instead of made-up volumes."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("demo"),
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, callback=finite, help="For training; 3, or 20 with --data."),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    _json: Json = False,
) -> None:
    """Run the main job: add domains, train them together, add one more, predict, evaluate.

    It keeps to its folder: your own catalog is not touched.

    \b
    Examples:
      u2net demo
      u2net demo --data datasets/ --output /tmp/demo --minutes 30
    """
    from u2net_platform.cli.training_display import training_display
    from u2net_platform.workflows.demo import DemoOptions, run_demo

    chosen = minutes or MINUTES[data is None]
    options = DemoOptions(output.resolve(), data, chosen, seed, device)
    try:
        with training_display() as display:
            result = run_demo(options, display)
    except Interrupted as stopped:
        stopped.hint = f"A demo does not go on: remove {options.directory}, and start anew."
        raise
    emit(result, _render)


def _render(result: DemoResult) -> Group:
    from rich.console import Group
    from rich.table import Table

    table = Table("version", "test Dice", "of a constant answer", "HD95 mm", "cases", "failed")
    for one in result.domains:
        distance = "-" if one.hd95_mm is None else f"{one.hd95_mm:.1f}"
        numbers = (f"{one.dice:.3f}", f"{one.constant_dice:.3f}", distance)
        table.add_row(one.version, *numbers, str(one.cases), str(one.failures))
    same = " and ".join(result.unchanged)
    last = result.domains[-1].version
    home = f"U2NET_HOME={result.home}"
    return Group(
        table,
        f"{last} was trained on a frozen backbone: {same} are the same bytes as before it.",
        f"Pictures: {result.sheet}",
        f"Predictions: {result.predictions}",
        "Try next:",
        f"  {home} u2net model list",
        f"  {home} u2net model show {last}",
        f"  {home} u2net domain list",
        f"  mlflow ui --backend-store-uri sqlite:///{result.home / 'mlflow.db'}",
    )
