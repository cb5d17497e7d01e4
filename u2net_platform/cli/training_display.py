"""What a training run shows on the terminal while it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from u2net_platform.cli.output import console, talk

if TYPE_CHECKING:
    from u2net_platform.training.trainer import Step

MEMORY = 0.9  # of the moving averages that are shown
LINE_SECONDS = 30.0  # between lines where there is no terminal


class TrainingDisplay:
    """A table that is kept up to date: loss, step time and validation Dice of each domain.

    Where stderr is no terminal, a line every half minute says the same.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._loss: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._steps: Counter[str] = Counter()  # seen of each domain: some have more than others
        self._dice: dict[str, float] = {}
        self._cycle = 0
        self._status = "preparing"
        self._since_line = LINE_SECONDS
        self._told_at = time.monotonic()

    def say(self, command: str) -> None:
        talk(f"$ {command}")

    def on_prepare(self, domain: str, case: str) -> None:
        self._tell(f"preparing {domain}: {case}")

    def on_case(self, case: str) -> None:
        self._tell(f"case {case}")

    def on_note(self, text: str) -> None:
        self._live.console.print(text)

    def on_step(self, step: Step) -> None:
        if step.cycle < self._cycle:  # another run has begun
            for memory in (self._loss, self._seconds, self._steps, self._dice):
                memory.clear()
        self._cycle = step.cycle
        for memory, value in ((self._loss, step.loss), (self._seconds, step.seconds)):
            before = memory.get(step.domain, value)
            memory[step.domain] = MEMORY * before + (1 - MEMORY) * value
        self._steps[step.domain] += 1
        spent = sum(self._seconds[name] * steps for name, steps in self._steps.items())
        cycle = spent / self._steps.total() * len(self._steps)
        left = _duration((step.cycles - step.cycle) * cycle)
        self._status = f"cycle {step.cycle + 1} of {step.cycles}, {left} left"
        self._since_line += step.seconds
        self._refresh()
        if not self._live.console.is_terminal and self._since_line >= LINE_SECONDS:
            self._since_line = 0.0
            self._live.console.print(self._line())

    def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None:
        self._dice = dict(dice)
        self._refresh()
        if dice and not self._live.console.is_terminal:
            found = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
            self._live.console.print(f"cycle {cycle}: validation Dice {found}")

    def _tell(self, status: str) -> None:
        """Of cases: a line now and then, so that hours of them do not look like a standstill."""
        self._status = status
        self._refresh()
        now = time.monotonic()
        if not self._live.console.is_terminal and now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            self._live.console.print(status)

    def _refresh(self) -> None:
        if self._live.console.is_terminal:
            self._live.update(self._table())

    def _line(self) -> str:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in self._loss.items())
        return f"{self._status}; loss {losses}"

    def _table(self) -> Table:
        table = Table("domain", "loss", "s / step", "validation Dice", caption=self._status)
        for name, loss in self._loss.items():
            dice = self._dice.get(name)
            shown = "-" if dice is None else f"{dice:.3f}"
            table.add_row(name, f"{loss:.3f}", f"{self._seconds[name]:.2f}", shown)
        return table


@contextmanager
def training_display() -> Iterator[TrainingDisplay]:
    with Live(console=console(stderr=True), refresh_per_second=4, transient=True) as live:
        yield TrainingDisplay(live)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
