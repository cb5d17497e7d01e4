"""What `u2net federation run` and `resume` say while a run goes on elsewhere."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from u2net_platform.cli.app import app
from u2net_platform.files import exclusive
from u2net_platform.settings import Settings
from u2net_platform.workflows.request import LOCK_FILE


def test_a_run_that_is_at_work_is_watched_and_not_begun_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second coordinator would end at once, and take the first one's place in our books."""
    run = "20260131-120000-1a2b"
    monkeypatch.setattr(
        "u2net_platform.federation.superlink.SuperLink",
        lambda settings: SimpleNamespace(
            submit=lambda run: pytest.fail("begun twice"),
            number_of=lambda run: 7,
            flower_status=lambda number: "running",
        ),
    )
    monkeypatch.setattr("u2net_platform.federation.request.request_of", lambda settings, run: None)
    monkeypatch.setattr(
        "u2net_platform.federation.status.read_status",
        lambda settings, run: SimpleNamespace(rounds=[], ended_at=None),
    )

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    with exclusive(settings.runs_dir / run / LOCK_FILE):
        ended = CliRunner().invoke(app, ["federation", "resume", run])
    assert (ended.exit_code, "is at work already" in ended.stderr) == (130, True)


def test_who_stops_watching_is_told_that_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    monkeypatch.setattr(
        "u2net_platform.federation.superlink.SuperLink",
        lambda settings: SimpleNamespace(submit=lambda run: 1),
    )
    monkeypatch.setattr("u2net_platform.federation.request.request_of", lambda settings, run: None)
    monkeypatch.setattr(
        "u2net_platform.federation.status.read_status",
        lambda settings, run: SimpleNamespace(rounds=[], ended_at=None),
    )
    ended = CliRunner().invoke(app, ["federation", "resume", "20260131-120000-1a2b", "--json"])
    found = json.loads(ended.stdout)
    assert (ended.exit_code, found["error_code"]) == (130, "Interrupted")
    assert "20260131-120000-1a2b goes on at the SuperLink" in found["message"]
    assert "u2net federation stop 20260131-120000-1a2b" in found["hint"]
