import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from u2net_platform.cli.output import Commands, Json, emit, progress, table_of
from u2net_platform.errors import InvalidCases, MissingFile, U2NetError

FAULTS: dict[str, BaseException] = {
    "known": MissingFile("scan.nii.gz does not exist", "Give another file."),
    "unknown": ZeroDivisionError("by nought\nsecond line"),
    "interrupt": KeyboardInterrupt(),
    "pipe": BrokenPipeError(32, "Broken pipe"),
}


@dataclasses.dataclass
class Thing:
    path: Path
    score: float


def make_app() -> typer.Typer:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @app.command()
    def fail(kind: str, _json: Json = False) -> None:
        raise FAULTS[kind]

    @app.command()
    def show(faulty: bool = False, _json: Json = False) -> None:
        with progress("Looking", 2) as on_case:
            on_case("case_1")
        failure = InvalidCases("1 of 2 cases", "Correct it.") if faulty else None
        emit(Thing(Path("a"), float("nan")), lambda thing: f"[2, 98] {thing.path}", failure)

    return app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(make_app(), arguments)


def envelope(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_name_in_another_encoding_is_escaped_in_json() -> None:
    FAULTS["encoding"] = MissingFile("M\udcfcller ist hier: ü", "Rename it.")
    result = run("fail", "encoding", "--json")
    assert envelope(result)["message"] == "M\udcfcller ist hier: ü"
    assert "ist hier: ü" in result.stdout


def test_what_the_next_command_is_given_stays_whole_in_a_narrow_terminal() -> None:
    run, words = "20260131-120000-1a2b", "words " * 30
    columns = {"run": lambda _: run, "kind": lambda _: words, "domains": lambda _: words}
    narrow = Console(width=60, record=True, file=io.StringIO())
    narrow.print(table_of([run], columns))
    assert run in narrow.export_text()


def test_a_known_fault_is_told_on_stderr_with_its_remedy_and_exit_code() -> None:
    result = run("fail", "known")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert "scan.nii.gz does not exist" in result.stderr
    assert "Give another file." in result.stderr


def test_a_known_fault_fills_the_json_envelope() -> None:
    result = run("fail", "known", "--json")
    assert result.exit_code == 4
    assert envelope(result) == {
        "schema_version": 1,
        "status": "error",
        "error_code": "MissingFile",
        "message": "scan.nii.gz does not exist",
        "hint": "Give another file.",
    }


def test_an_unexpected_fault_is_one_line_until_a_traceback_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = run("fail", "unknown")
    assert result.exit_code == 1
    assert "ZeroDivisionError: by nought" in result.stderr
    assert "U2NET_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("U2NET_DEBUG", "1")
    assert "Traceback" in run("fail", "unknown").stderr


def test_an_interrupt_ends_with_130() -> None:
    assert run("fail", "interrupt").exit_code == 130


def test_a_closed_pipe_is_not_reported() -> None:
    result = run("fail", "pipe")
    assert result.exit_code == 1
    assert result.output == ""


def test_data_go_to_stdout_and_talk_to_stderr() -> None:
    result = run("show")
    assert result.stdout == "[2, 98] a\n"
    assert "Looking" in result.stderr


def test_json_is_one_document_in_which_nan_is_null() -> None:
    result = run("show", "--json")
    assert envelope(result) == {
        "schema_version": 1,
        "status": "ok",
        "data": {"path": "a", "score": None},
    }


def test_findings_come_with_their_fault() -> None:
    result = run("show", "--faulty", "--json")
    assert result.exit_code == InvalidCases.exit_code
    assert envelope(result)["data"]["path"] == "a"
    assert envelope(result)["error_code"] == "InvalidCases"
    plain = run("show", "--faulty")
    assert plain.stdout.startswith("[2, 98] a")
    assert "1 of 2 cases" in plain.stderr


def test_every_error_says_what_and_what_to_do() -> None:
    assert str(U2NetError("what", "remedy")) == "what\nremedy"
