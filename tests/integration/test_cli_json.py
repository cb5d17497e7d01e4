"""With --json, stdout holds one document with the envelope, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from u2net_platform.cli.app import app

# Each command, and the keys of its data; of the first row, where that is a list
COMMANDS: dict[str, set[str]] = {
    "domain list": {"domains"},
    "domain show box": {"name", "spec", "digest", "source", "hooks", "added", "data_dir"},
    "domain add box": {"record", "change"},
    "domain check box": {"name", "directory", "cases", "findings"},
    "prepare box --batch-voxels 8192": {"domain", "split", "plan"},
    "evaluate box": {"version", "mean", "cases"},
    "model list": {"domain", "number", "backbone_digest", "domain_digest", "run_id", "metrics"},
    "model list box": {"domain", "number"},
    "model show box": {"version", "run", "same_backbone"},
    "catalog query runs": {"id", "kind", "status", "step"},
    "catalog status": {"current", "head"},
    "catalog upgrade": {"current", "head"},
    "info": {"version", "settings"},
    "doctor": {"findings"},
}


def envelope(text: str) -> Any:
    """The one document; `json.loads` refuses anything before or after it."""
    document = json.loads(text)
    assert list(document) == ["schema_version", "status", "data"]
    assert (document["schema_version"], document["status"]) == (1, "ok")
    return document["data"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_writes_one_document(site, command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--json"])
    assert result.exit_code == 0, result.output
    data = envelope(result.stdout)
    assert COMMANDS[command] <= set(data[0] if isinstance(data, list) else data)


def test_commands_that_write_say_what_and_where(site, tmp_path) -> None:
    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        return envelope(result.stdout)

    new = run("domain", "new", "crate", "--from-dataset", site.data)
    assert new == {"name": "crate", "directory": str(site.home / "plugins" / "crate")}
    assert run("domain", "add", "crate")["change"] == "added"
    assert run("domain", "remove", "crate") == {"name": "crate"}
    target = tmp_path / "mask.nii.gz"
    predicted = run("predict", "--domain", "box", "-i", site.case(0)[0], "-o", target)
    case = {"case_id": "box_0", "domain": "box", "output": str(target), "error": None}
    (found,) = predicted["cases"]
    assert found.items() >= case.items()
    assert list(found["volumes_ml"]) == ["box"]
    flags = ("--cycles", "1", "--workers", "0", "--batch-voxels", "8192", "--device", "cpu")
    adapted = run("adapt", "box", "--from", "box:1", *flags)
    assert [run["status"] for run in adapted["runs"]] == ["completed"]
    assert [version["number"] for version in adapted["versions"]] == [2]


@pytest.mark.parametrize("command", ["info", "domain list", "doctor"])
def test_no_library_writes_to_stdout_beside_the_document(site, command: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "u2net_platform", *command.split(), "--json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    envelope(ended.stdout)
