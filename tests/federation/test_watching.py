"""What `u2net federation run` and `resume` say while a run goes on elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from u2net_platform.cli.app import app
from u2net_platform.federation.status import RunStatus
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
    monkeypatch.setattr(
        "u2net_platform.federation.status.read_status",
        lambda settings, run: RunStatus(run, "running", 0, 1, (), None),
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
    monkeypatch.setattr(
        "u2net_platform.federation.status.read_status",
        lambda settings, run: RunStatus(run, "running", 0, 1, (), None),
    )
    ended = CliRunner().invoke(app, ["federation", "resume", "20260131-120000-1a2b", "--json"])
    found = json.loads(ended.stdout)
    assert (ended.exit_code, found["error_code"]) == (130, "Interrupted")
    assert "20260131-120000-1a2b goes on at the SuperLink" in found["message"]
    assert "u2net federation stop 20260131-120000-1a2b" in found["hint"]


def test_what_the_coordinator_says_is_told_until_flower_is_done_with_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog has a run's end before it is written down which sites have published."""
    run = "20260131-120000-1a2b"
    before = RunStatus(run, "failed", 0, 1, (), datetime.now(UTC), ("of before",))
    works = replace(before, status="running", notes=("of before", "Round 1 goes on without south"))
    ended_at = datetime.now(UTC) + timedelta(minutes=1)
    ends = replace(works, status="completed", round=1, ended_at=ended_at)
    done = replace(ends, notes=(*ends.notes, "MLflow is down"), unpublished=("south",))
    states = iter([before, works, ends, ends, done, done])
    answers = iter(["running", "finished:completed"])
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(
        "u2net_platform.federation.superlink.SuperLink",
        lambda settings: SimpleNamespace(
            submit=lambda run: 7, flower_status=lambda number: next(answers)
        ),
    )
    monkeypatch.setattr(
        "u2net_platform.federation.status.read_status", lambda settings, run: next(states)
    )
    ended = CliRunner().invoke(app, ["federation", "resume", run])
    assert ended.exit_code == 0, ended.stderr
    _, *told, last = ended.stderr.splitlines()
    assert told == ["Round 1 goes on without south", "MLflow is down"]
    assert last.startswith("south: nothing is published there")
    assert f"u2net federation resume {run}" in last
