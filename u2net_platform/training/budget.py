"""How many cycles fit into the minutes that a run may take."""

from __future__ import annotations

import time

from u2net_platform.training.schedule import WARM_UP_CYCLES

TIMING_SHARE = 1 / 16  # of the minutes, after which the number of cycles is fixed
SLOW_SHARE = 1 / 4  # of them, after which it is fixed though fewer cycles were seen
PLANNED_SHARE = 0.97  # of them; checkpoints and a pause must fit in too
VALIDATION_SHARE = 0.2  # of them at most; where one validation takes long, there are fewer


class TimeBudget:
    """The minutes of a run from now on, and how fast its cycles go by.

    begin: the first cycles, which tell nothing: their batches were made ahead of time.
    """

    def __init__(self, minutes: float, begin: int) -> None:
        self._seconds = 60 * minutes
        self._begin = begin
        self._laps = [time.monotonic()]
        self._reserved = 0.0

    def end_cycle(self) -> None:
        self._laps.append(time.monotonic())

    @property
    def is_timed(self) -> bool:
        """Whether enough was seen to fix the length of the run."""
        enough = len(self._laps) > self._begin + WARM_UP_CYCLES
        share = (self._laps[-1] - self._laps[0]) / self._seconds
        return self.cycles_left() is not None and share >= (TIMING_SHARE if enough else SLOW_SHARE)

    def reserve_validations(self, most: int) -> int:
        """How many fit in, one at least, where one was made since the cycle ended."""
        seconds = max(time.monotonic() - self._laps[-1], 1e-3)
        affordable = int(VALIDATION_SHARE * self._seconds / seconds)
        count = max(1, min(most, affordable))
        self._reserved = count * seconds
        return count

    def cycles_left(self) -> int | None:
        """At the speed so far, one at least; None while nothing can be told."""
        measured = self._laps[self._begin :]
        if len(measured) < 2:
            return None
        lap = (measured[-1] - measured[0]) / (len(measured) - 1)
        spent = time.monotonic() - self._laps[0]
        left = PLANNED_SHARE * self._seconds - spent - self._reserved
        return max(1, int(left / lap))
