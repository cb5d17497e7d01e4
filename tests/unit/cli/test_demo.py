import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from u2net_platform.cli.app import app
from u2net_platform.errors import Interrupted
from u2net_platform.workflows import demo


def test_a_demo_that_is_stopped_names_no_run_of_another_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise Interrupted("Stopped by SIGINT", "Go on with: u2net train --resume x")

    monkeypatch.setattr(demo, "run_demo", stopped)
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "demo"), "--json"])
    assert result.exit_code == 130
    hint = json.loads(result.stdout)["hint"]
    assert str(tmp_path / "demo") in hint and "--resume" not in hint


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1"])
def test_a_length_that_is_none_is_refused_before_anything_is_made(
    tmp_path: Path, minutes: str
) -> None:
    command = ["demo", "--output", str(tmp_path / "demo"), "--minutes", minutes]
    assert CliRunner().invoke(app, command).exit_code == 2
    assert not (tmp_path / "demo").exists()
