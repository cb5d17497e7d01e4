"""A version that was trained, with all that a real run notes, in another home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from u2net_platform.cli.app import app


def u2net(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["data"]


def test_a_trained_version_is_exported_imported_verified_and_deployed_elsewhere(
    site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    u2net("evaluate", "box", "--pictures", tmp_path / "worst.png")
    assert (tmp_path / "worst.png").read_bytes().startswith(b"\x89PNG")
    u2net("model", "export", "box", "--output", tmp_path / "box.u2net")
    there = u2net("model", "show", "box")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "elsewhere"))
    u2net("model", "import", tmp_path / "box.u2net")
    here = u2net("model", "show", "box")
    assert here["version"]["metrics"]["test"] == there["version"]["metrics"]["test"]
    assert here["run"]["fingerprints"]["box"]["data_digest"]
    assert u2net("model", "verify")["versions"][0]["output"] == "same"
    assert u2net("model", "check", "box", "box:1")["reasons"] == []
    assert u2net("model", "deploy", "box", "1")["version"] == "box:1"
    assert u2net("model", "sync")["runs"] == []
