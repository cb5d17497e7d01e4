"""Options that several commands have: declared once, handed over as one object."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from click.core import ParameterSource

from u2net_platform.errors import NotWritable, UnsupportedFormat

if TYPE_CHECKING:
    from u2net_platform.training.recipe import Recipe

RecipeName = Annotated[str, typer.Option("--recipe", help="default, paper, or a TOML file.")]
BatchVoxels = Annotated[
    int | None,
    typer.Option(help="At most in a batch; patches follow. 262144 suits 2 cores, 4194304 a GPU."),
]

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of the recipe, as clip_norm=1; may be repeated."),
]

# The largest number that every catalog holds.
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Decides weights and batches.")]


def fold_of(text: object) -> int | None:
    """The number of a fold; None for `all`."""
    if text == "all":
        return None
    if str(text) not in {*"01234"}:
        raise typer.BadParameter(f"{text!r} is no fold; write 0, 1, 2, 3, 4, or all")
    return int(str(text))


Fold = Annotated[
    int | None,
    typer.Option(
        parser=fold_of,
        metavar="0..4|all",
        help="Which fifth of the cases is the test; all learns from it too, and tests none.",
    ),
]


def finite(value: float | None) -> float | None:
    # A range alone lets `nan` and `inf` through.
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def bytes_of(text: str) -> int:
    """Bytes: a number of GiB, or one with its unit, as 4GiB or 800MB."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(
            TypeAdapter(ByteSize).validate_python(f"{float(text)}GiB" if _plain(text) else text)
        )
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is no size; write 4GiB, or 800MB") from error


def _plain(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


Memory = Annotated[
    int | None,
    typer.Option(
        parser=bytes_of,
        metavar="SIZE",
        help="Most that the process may hold, as 4GiB; unless given, what is free.",
    ),
]
Mirror = Annotated[
    bool, typer.Option("--mirror", help="Mean over mirror images too: slower, a little better.")
]


@dataclass(frozen=True)
class RunOptions:
    """How to train, and on what. `place` are those that are not the recipe's."""

    recipe: RecipeName = "default"
    cycles: Annotated[
        int | None, typer.Option(min=1, help="Each as many steps as there are domains.")
    ] = None
    batch_voxels: BatchVoxels = None
    assignments: Assignments = None
    fold: Fold = 0
    seed: Seed = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto"
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that make batches; as many as suit the device."),
    ] = None

    def load_recipe(self) -> Recipe:
        """Raises InvalidRecipe."""
        from u2net_platform.training.recipe import Recipe

        return Recipe.load(
            self.recipe,
            self.assignments or (),
            cycles=self.cycles,
            batch_voxels=self.batch_voxels,
        )

    @property
    def place(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("fold", "seed", "device", "workers")}


def given(context: typer.Context, *besides: str) -> dict[str, str]:
    """Of the options that were given on the command line, the name of each parameter, and how it
    is written; but for those `besides`, and for --json."""
    return {
        one.name: one.opts[0]
        for one in context.command.params
        if one.name not in (None, "_json", *besides)
        and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE
    }


def refuse(options: dict[str, str], reason: str) -> None:
    """Rather than do without a word what was not asked for."""
    if options:
        raise typer.BadParameter(f"{', '.join(options.values())}: {reason}")


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its parameter `options`, a dataclass, in place of that."""
    own = get_type_hints(command, include_extras=True)
    kind = own["options"]
    shared, hints = fields(kind), get_type_hints(kind, include_extras=True)
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name == "options":
            parameters += [
                inspect.Parameter(one.name, parameter.kind, default=one.default, annotation=hint)
                for one in shared
                if (hint := hints[one.name])
            ]
        else:
            parameters.append(parameter.replace(annotation=own[name]))

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        options = kind(**{one.name: arguments.pop(one.name) for one in shared})
        command(**arguments, options=options)

    # What typer reads.
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapped


def check_report(file: Path | None, *endings: str) -> None:
    """Whether a file to write at the end can be, and has an ending for what it will hold."""
    from u2net_platform.workflows.labeller import require_free

    if file is None:
        return
    if file.suffix not in endings:
        raise UnsupportedFormat(
            f"{file} does not end in {' or '.join(endings)}", "Give it that ending."
        )
    if file.is_dir() or file.name == "dataset.json":
        raise NotWritable(f"{file} is a folder, or describes a data set", "Name another file.")
    require_free(file, (), "replace")
