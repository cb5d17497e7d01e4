"""What a study tells of its runs; that it trains them is tested in integration."""

from __future__ import annotations

from typer.testing import CliRunner

from u2net_platform.cli.app import app
from u2net_platform.training.recipe import Recipe
from u2net_platform.workflows.study import MODES, ModeResult, Study, StudyResult, to_markdown


def told(recipe: str, tail: float | None) -> str:
    """The tables of a study of two domains; `tail` is the Dice of the second in every mode."""
    modes = tuple(
        ModeResult(
            mode=mode, versions=(), failures=0, parameters=1, added=None, seconds=0,
            dice={"heart": {"left atrium": 0.8 + place / 10}, "seal": {"tail": tail}},
            steps={"heart": 1000 + place, "seal": 7},
        )
        for place, mode in enumerate(MODES)
    )  # fmt: skip
    study = Study(("heart", "seal"), None, Recipe.load(recipe, cycles=9))
    return to_markdown(StudyResult(study, {"heart": 5, "seal": 5}, modes))


def test_the_means_are_of_domains_on_both_sides() -> None:
    row = "| **mean of 2 domains, without the new** |  | 65.0 | 70.0 | 75.0 | 85.7 | 82.2 | 82.9 |"
    assert row in told("default", 0.5)


def test_a_domain_without_any_score_is_left_out_of_means_and_verdicts() -> None:
    text = told("default", None)
    assert "| **mean of 1 domains, without the new** |  | 80.0 | 90.0 | 100.0 |" in text
    assert "| seal: tail | 5 | - | - | - |" in text
    assert "in points of Dice: heart +10.0. It loses nowhere." in text


def test_a_study_without_any_score_is_told_all_the_same() -> None:
    modes = tuple(
        ModeResult(mode, (), {"seal": {"tail": None}}, 0, {}, 1, None, 0) for mode in MODES
    )
    result = StudyResult(Study(("seal",), None, Recipe.load("default")), {"seal": 5}, modes)
    assert "| **mean of 0 domains, without the new** |  | - | - | - |" in to_markdown(result)


def test_a_domain_with_other_classes_than_the_papers_has_no_figures_of_its() -> None:
    dice = {"heart": {"left atrium": 0.9, "right atrium": 0.8}}
    modes = tuple(ModeResult(mode, (), dice, 0, {}, 1, None, 0) for mode in MODES)
    result = StudyResult(Study(("heart",), None, Recipe.load("default")), {"heart": 5}, modes)
    text = to_markdown(result)
    assert "| heart: left atrium | 5 | 90.0 | 90.0 | 90.0 | - | - | - |" in text
    assert "| heart: right atrium | 5 | 80.0 | 80.0 | 80.0 | - | - | - |" in text


def test_the_budget_is_equal_or_the_runs_are_said_to_end_by_themselves() -> None:
    assert "Budget: 9 steps of every domain in every mode, in turn" in told("default", 0.5)
    text = told("paper", 0.5)
    assert "Budget: each run ends by itself, at the latest after 9 steps of every domain" in text
    assert "| universal | heart 1,002, seal 7 |" in text


def test_a_domain_that_is_named_twice_is_a_wrong_command_line(settings) -> None:
    wrong = CliRunner().invoke(app, ["study", "heart", "heart"])
    assert (wrong.exit_code, "named twice" in wrong.output) == (2, True)
