"""How the learning rate falls. A schedule's state is a few numbers, so that it can be resumed."""

from __future__ import annotations

from typing import Protocol

from u2net_platform.training.recipe import Recipe

WARM_UP_CYCLES = 10
POWER = 0.9
EPOCH_STEPS = 250  # paper, section 3
PATIENCE_EPOCHS = 30
FACTOR = 5.0
LEAST_GAIN = 5e-4
SMALLEST_RATE = 1e-8
MEMORY = 0.93  # of the epoch losses' moving average, about 30 epochs long


class Schedule(Protocol):
    """`rate(cycle)` is the learning rate; None ends the training."""

    def rate(self, cycle: int) -> float | None: ...

    def observe(self, loss: float) -> None:
        """Take note of the loss of one step."""

    def state(self) -> dict[str, float]: ...

    def restore(self, state: dict[str, float]) -> None: ...


class Polynomial:
    """A short linear rise, then (1 - progress) ** 0.9, as nnU-Net's."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def rate(self, cycle: int) -> float | None:
        rise = min(1.0, (cycle + 1) / WARM_UP_CYCLES)
        left = max(0.0, 1.0 - cycle / self._recipe.cycles)
        return self._recipe.learning_rate * rise * float(left**POWER)

    def observe(self, loss: float) -> None: ...

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None: ...


class Plateau:
    """Divide by five when the moving average of the loss has not fallen for 30 epochs.

    Source: paper, section 3, implementation details.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._state = {
            "rate": recipe.learning_rate,
            "sum": 0.0,
            "steps": 0.0,
            "average": float("inf"),
            "best": float("inf"),
            "waited": 0.0,
        }

    def rate(self, cycle: int) -> float | None:  # noqa: ARG002
        return self._state["rate"] if self._state["rate"] >= SMALLEST_RATE else None

    def observe(self, loss: float) -> None:
        s = self._state
        s["sum"] += loss
        s["steps"] += 1
        if s["steps"] == EPOCH_STEPS:
            self._end_epoch(s["sum"] / EPOCH_STEPS)
            s["sum"] = s["steps"] = 0.0

    def _end_epoch(self, loss: float) -> None:
        s = self._state
        first = s["average"] == float("inf")
        s["average"] = loss if first else MEMORY * s["average"] + (1 - MEMORY) * loss
        if s["average"] < s["best"] - LEAST_GAIN:
            s["best"], s["waited"] = s["average"], 0.0
            return
        s["waited"] += 1
        if s["waited"] >= PATIENCE_EPOCHS:
            s["rate"], s["waited"] = s["rate"] / FACTOR, 0.0
            s["best"] = s["average"]

    def state(self) -> dict[str, float]:
        return dict(self._state)

    def restore(self, state: dict[str, float]) -> None:
        self._state.update(state)


def schedule_of(recipe: Recipe) -> Schedule:
    return Polynomial(recipe) if recipe.schedule == "polynomial" else Plateau(recipe)
