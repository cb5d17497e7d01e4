"""The demo as `make demo` runs it, shortened; and, marked slow, in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from u2net_platform.cli.app import app


def run(folder: Path, minutes: float) -> dict:
    command = ["demo", "-o", str(folder), "--minutes", str(minutes), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["data"]


def test_a_short_demo_leaves_versions_predictions_and_pictures_and_the_user_s_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_CATALOG_URL", f"sqlite:///{tmp_path}/own.db")
    monkeypatch.setenv("U2NET_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("U2NET_PLUGINS", str(tmp_path / "plugins"))
    found = run(tmp_path / "demo", 0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert [one["version"] for one in found["domains"]] == ["ball:1", "twin:1", "ct_organ:1"]
    assert found["unchanged"] == ["ball:1", "twin:1"]
    assert not any(one["failures"] for one in found["domains"])
    assert Path(found["sheet"]).read_bytes().startswith(b"\x89PNG")
    assert len(list(Path(found["predictions"]).glob("*.nii.gz"))) == 2


def test_a_demo_does_not_write_into_a_folder_that_is_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--json"])
    assert result.exit_code == 5
    assert json.loads(result.stdout)["error_code"] == "NotWritable"


@pytest.mark.slow
def test_the_demo_learns_far_more_than_a_constant_answer(tmp_path: Path) -> None:
    for one in run(tmp_path / "demo", 3)["domains"]:
        assert one["dice"] > 2 * one["constant_dice"], one
