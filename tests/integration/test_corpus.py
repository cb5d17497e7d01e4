"""Each fault of the corpus has a name of its own; nothing ends in a traceback or is let through."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from u2net_platform import errors
from u2net_platform.cli.app import app

_place = importlib.util.spec_from_file_location("corpus", Path(__file__).parents[1] / "corpus.py")
assert _place is not None
assert _place.loader is not None
corpus = importlib.util.module_from_spec(_place)
_place.loader.exec_module(corpus)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    folder = tmp_path / "organs"
    folder.mkdir()
    (folder / "domain.toml").write_text(corpus.DOMAIN_TOML)
    return folder


def check(plugin: Path, data: Path) -> tuple[int, dict]:
    arguments = ["domain", "check", "organs", "--path", plugin, "--data", data, "--json"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, json.loads(result.stdout)


def test_the_corpus_is_large_enough() -> None:
    assert len(corpus.FAULTS) >= 40


@pytest.mark.parametrize("name", corpus.FAULTS)
def test_every_fault_is_named(plugin: Path, tmp_path: Path, name: str) -> None:
    spoil, code, severity = corpus.FAULTS[name]
    data = tmp_path / "data"
    spoil(*corpus.write_sound(data))
    exit_code, answer = check(plugin, data)
    assert exit_code == (4 if severity == "error" else 0), answer
    if code == "InvalidDataset":
        assert answer["error_code"] == code
        return
    found = {(one["error_code"], one["severity"]) for one in answer["data"]["findings"]}
    assert found == {(code, severity)}, answer
    assert issubclass(getattr(errors, code), errors.DataError)
    for one in answer["data"]["findings"]:
        expected = {
            "MissingClass": (None,),
            "WrongModality": (None,),
            "DuplicateCase": ("c_3", "c_1"),
        }
        assert one["case"] in expected.get(code, ("c_1", "c_1.jpg"))
        assert len(one["message"]) > 10 < len(one["hint"])


@pytest.mark.parametrize("name", ["nothing", *corpus.SOUND])
def test_what_is_odd_but_right_is_let_through(plugin: Path, tmp_path: Path, name: str) -> None:
    pair = corpus.write_sound(tmp_path / "data")
    if name != "nothing":
        corpus.SOUND[name](*pair)
    exit_code, answer = check(plugin, tmp_path / "data")
    assert (exit_code, answer["data"]["findings"]) == (0, [])
