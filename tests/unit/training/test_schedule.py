from __future__ import annotations

import json

import pytest

from u2net_platform.training.recipe import Recipe
from u2net_platform.training.schedule import Plateau, Polynomial, schedule_of

PAPER = Recipe.load("paper")
DEFAULT = Recipe.load("default", cycles=100)


def observe_epochs(schedule: Plateau, loss: float, epochs: int) -> None:
    for _ in range(250 * epochs):
        schedule.observe(loss)


def test_a_plateau_of_thirty_epochs_divides_the_rate_by_five() -> None:
    schedule = Plateau(PAPER)
    observe_epochs(schedule, 1.0, 30)  # the first one is a gain, over nothing
    assert schedule.rate(0) == 3e-4
    observe_epochs(schedule, 1.0, 1)
    assert schedule.rate(0) == pytest.approx(3e-4 / 5)
    observe_epochs(schedule, 1.0, 29)
    assert schedule.rate(0) == pytest.approx(3e-4 / 5)
    observe_epochs(schedule, 1.0, 1)
    assert schedule.rate(0) == pytest.approx(3e-4 / 25)


def test_a_gain_in_between_begins_the_wait_anew() -> None:
    schedule = Plateau(PAPER)
    observe_epochs(schedule, 1.0, 30)
    observe_epochs(schedule, 0.9, 1)
    assert schedule.rate(0) == 3e-4
    schedule = Plateau(PAPER)
    observe_epochs(schedule, 1.0, 30)
    observe_epochs(schedule, 0.9999, 1)  # too small a gain
    assert schedule.rate(0) == pytest.approx(3e-4 / 5)


def test_a_plateau_ends_the_training_below_the_smallest_rate() -> None:
    schedule, rates = Plateau(PAPER), []
    observe_epochs(schedule, 1.0, 1)
    while (rate := schedule.rate(0)) is not None:
        rates.append(rate)
        observe_epochs(schedule, 1.0, 30)
    assert rates[-1] >= 1e-8
    assert rates[-1] / 5 < 1e-8
    assert rates == pytest.approx([3e-4 / 5**k for k in range(len(rates))])


def test_a_plateau_goes_on_from_its_state() -> None:
    whole, half = Plateau(PAPER), Plateau(PAPER)
    observe_epochs(whole, 1.0, 31)
    for _ in range(250 * 17 + 99):
        half.observe(1.0)
    taken_up = Plateau(PAPER)
    taken_up.restore(json.loads(json.dumps(half.state())))
    for _ in range(250 * 31 - (250 * 17 + 99)):
        taken_up.observe(1.0)
    assert taken_up.state() == whole.state()
    assert taken_up.rate(0) == pytest.approx(3e-4 / 5)


def test_the_polynomial_rises_for_ten_cycles_and_falls_to_nothing() -> None:
    schedule, rate = Polynomial(DEFAULT), DEFAULT.learning_rate
    assert schedule.rate(0) == pytest.approx(rate / 10)
    assert schedule.rate(4) == pytest.approx(rate * 0.5 * 0.96**0.9)
    assert schedule.rate(9) == pytest.approx(rate * 0.91**0.9)
    assert schedule.rate(50) == pytest.approx(rate * 0.5**0.9)
    assert schedule.rate(100) == 0


def test_a_recipe_names_its_schedule() -> None:
    assert isinstance(schedule_of(PAPER), Plateau)
    assert isinstance(schedule_of(DEFAULT), Polynomial)
