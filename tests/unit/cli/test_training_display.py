"""What is shown of a run that goes by."""

from io import StringIO

import pytest
from rich.console import Console
from rich.live import Live

from u2net_platform.cli import training_display
from u2net_platform.cli.training_display import TrainingDisplay
from u2net_platform.training.trainer import Step


def test_cases_are_told_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(training_display.time, "monotonic", lambda: now)
    shown = StringIO()
    display = TrainingDisplay(Live(console=Console(file=shown)))
    for case in range(100):  # of a second each
        now += 1
        display.on_prepare("heart", f"case {case}")
    assert shown.getvalue().splitlines() == [f"preparing heart: case {k}" for k in (29, 59, 89)]


def test_the_time_left_is_that_of_the_steps_left_of_which_some_domains_have_more() -> None:
    shown = StringIO()
    display = TrainingDisplay(Live(console=Console(file=shown)))
    for index in range(80):  # three steps of 10 s for each of 50 s: a cycle of two steps takes 40 s
        slow = index % 4 == 3
        display.on_step(
            Step(
                index // 2, 100, "large" if slow else "small", loss=0.5, seconds=50 if slow else 10
            )
        )
    assert "cycle 40 of 100, 0:40:40 left" in shown.getvalue()
