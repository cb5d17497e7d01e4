"""All that the command line writes: data on stdout, talk on stderr, faults as exit codes.

With `--json`, stdout carries one document and nothing else::

    {"schema_version": 1, "status": "ok", "data": ...}
    {"schema_version": 1, "status": "error", "error_code": ..., "message": ..., "hint": ...}

A command that looked at many things and found faults (`domain check`, `doctor`) writes the second
form with its findings under `data` as well.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import click
import typer
from typer.core import TyperGroup

from u2net_platform.errors import U2NetError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

ENVELOPE_VERSION = 1
_JSON = "u2net.json"


def _remember_json(context: typer.Context, wanted: bool) -> bool:
    # A context's meta is shared by all its children, so that a fault is reported in JSON as well.
    context.meta[_JSON] = wanted
    return wanted


# Every command declares `_json: Json = False`; `emit` and the report of a fault look it up.
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout.", callback=_remember_json)
]

Csv = Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
Offset = Annotated[int, typer.Option(min=0, help="Leave out the first so many.")]


class Commands(TyperGroup):
    """A group whose commands may raise: each fault becomes a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except U2NetError as error:
            _fail(error)
        except KeyboardInterrupt:
            talk("Interrupted.")
            raise typer.Exit(130) from None
        # Those are click's own; it ends quietly on a closed pipe.
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            _fail(_unexpected(error))


def emit(
    data: Any, render: Callable[[Any], RenderableType], failure: U2NetError | None = None
) -> None:
    """Write a command's result on stdout: `render(data)`, or `data` as JSON where asked for.

    `data` may hold pydantic models, dataclasses and paths. With `failure`, the result is the
    record of a fault: the command ends with its exit code.
    """
    if _json_wanted():
        _write_envelope({"data": data}, failure)
    else:
        shown = render(data)
        # A text is a text, as a spec or a path; tables alone are fitted to the window.
        console(stderr=False).print(shown, soft_wrap=isinstance(shown, str))
    if failure is not None:
        if not _json_wanted():
            _talk_of(failure)
        raise typer.Exit(failure.exit_code)


def emit_rows(
    data: Sequence[Any],
    columns: Mapping[str, Callable[[Any], object]],
    as_csv: bool,
    limit: int | None = None,
    offset: int = 0,
) -> None:
    """Write a list on stdout as a table, as CSV, or whole as JSON where asked for.

    columns: what each column is called, and what it shows of an entry.
    limit, offset: how many of a longer list were asked for, from where; where all of them are
        there, how the next ones are had is said on stderr.
    """
    if len(data) == limit:
        talk(f"{limit} shown; there may be more: --offset {offset + limit}")
    if not as_csv or _json_wanted():
        emit(data, lambda entries: table_of(entries, columns))
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    writer.writerows([show(entry) for show in columns.values()] for entry in data)


def talk(text: str) -> None:
    """Say something on stderr."""
    typer.echo(text, err=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr; the yielded function takes the name of what has just been done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[latest]}", markup=False),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, latest="")
        yield lambda latest: bar.update(task, advance=1, latest=latest)


def table_of(entries: Sequence[Any], columns: Mapping[str, Callable[[Any], object]]) -> Table:
    """Each column shows of an entry what its function gives."""
    from rich.table import Table

    table = Table()
    for name in columns:  # what the next command is given stays whole
        table.add_column(name, overflow="fold", no_wrap=name in ("run", "version"))
    for entry in entries:
        table.add_row(*(str(show(entry)) for show in columns.values()))
    return table


def _json_wanted() -> bool:
    return bool(click.get_current_context().meta.get(_JSON, False))


def console(stderr: bool) -> Console:
    """A rich console on one of the two streams."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # In a file or a pipe nothing has to fit a window: tables keep their rows whole.
    width = None if stream.isatty() else 200
    return Console(file=stream, width=width, markup=False, highlight=False)


def _fail(error: U2NetError) -> NoReturn:
    if _json_wanted():
        _write_envelope({}, error)
    else:
        _talk_of(error)
    raise typer.Exit(error.exit_code)


def _talk_of(error: U2NetError) -> None:
    typer.secho(f"{error.error_code}: {error.message}", err=True, fg="red")
    talk(error.hint)


def _unexpected(error: Exception) -> U2NetError:
    if os.environ.get("U2NET_DEBUG") == "1":
        talk("".join(traceback.format_exception(error)))
    first_line = (str(error).splitlines() or [""])[0]
    return U2NetError(
        f"unexpected {type(error).__name__}: {first_line}",
        "A fault of the program: repeat with U2NET_DEBUG=1 for the traceback, and report it.",
    )


def _write_envelope(content: dict[str, Any], failure: U2NetError | None) -> None:
    from pydantic_core import to_jsonable_python

    head: dict[str, Any] = {"schema_version": ENVELOPE_VERSION, "status": "ok"}
    if failure is not None:
        head |= {
            "status": "error",
            "error_code": failure.error_code,
            "message": failure.message,
            "hint": failure.hint,
        }
    plain = to_jsonable_python(head | content, inf_nan_mode="null")
    document = json.dumps(plain, indent=2, ensure_ascii=False)
    # A file's name in another encoding is escaped.
    typer.echo(document.encode("utf-8", "backslashreplace").decode())
