"""`u2net study`: the paper's protocol on domains of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from u2net_platform.cli.output import Json, emit, talk
from u2net_platform.cli.run_options import RunOptions, check_report, with_options
from u2net_platform.cli.train import Architecture
from u2net_platform.errors import Interrupted

if TYPE_CHECKING:
    from rich.markdown import Markdown

    from u2net_platform.workflows.study import StudyResult


@with_options
def study(
    domains: Annotated[list[str], typer.Argument(help="Domains that were added.")],
    new: Annotated[
        str | None, typer.Option(help="A domain to add to each network once it is trained.")
    ] = None,
    architecture: Annotated[Architecture, typer.Option()] = Architecture.lean,
    *,
    options: RunOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .md file for the tables.")
    ] = None,
    _json: Json = False,
) -> None:
    """Train independent, shared and universal networks with equal budgets; print Tables 2 and 3.

    Each domain gets the same number of steps in every mode; with a recipe like `paper`, whose
    schedule is `plateau`, each run ends by itself, and the table tells its steps. Ctrl-C stops a
    study; the same command goes on with it, and repeats no run that is completed.

    \b
    Examples:
      u2net study hippocampus heart --new spleen --cycles 300
      u2net study hippocampus heart liver --recipe paper --architecture paper --device cuda
    """
    from u2net_platform.cli.training_display import training_display
    from u2net_platform.files import write_text
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.study import Study, run_study, to_markdown

    if len(set(domains)) < len(domains):
        raise typer.BadParameter("a domain is named twice")
    if new in domains:
        raise typer.BadParameter(f"{new} cannot be new: it is among the domains")
    if options.fold is None:
        raise typer.BadParameter("a study scores test cases, of which --fold all has none")
    asked = Study(
        domains=tuple(domains),
        new=new,
        recipe=options.load_recipe(),
        architecture=architecture.value,
        **options.place,
    )
    check_report(output, ".md")
    try:
        with training_display() as display:
            result = run_study(Settings(), asked, display, display.on_prepare, display.on_case)
    except Interrupted as error:
        error.hint = "Repeat the command: it goes on from there."
        raise
    if output:
        write_text(output, to_markdown(result))
        talk(f"Wrote {output}")
    emit(result, _rendered)


def _rendered(result: StudyResult) -> Markdown:
    from rich.markdown import Markdown

    from u2net_platform.workflows.study import to_markdown

    return Markdown(to_markdown(result))
