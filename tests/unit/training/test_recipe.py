from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from u2net_platform.errors import InvalidRecipe
from u2net_platform.training.recipe import BUNDLED, Recipe


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_recipe_is_found_by_its_name(name: str) -> None:
    assert Recipe.load(name).name == name


def test_the_paper_s_recipe_is_the_paper_s() -> None:
    recipe = Recipe.load("paper")
    assert (recipe.loss, recipe.optimiser, recipe.schedule) == ("lovasz_focal", "adam", "plateau")
    assert (recipe.learning_rate, recipe.weight_decay) == (3e-4, 1e-5)
    assert recipe.clip_norm is None


def test_overrides_change_a_recipe_and_none_changes_nothing() -> None:
    plain = Recipe.load("default")
    changed = Recipe.load("default", cycles=7, learning_rate=None)
    assert changed == plain.model_copy(update={"cycles": 7})


def test_assignments_set_any_key_and_are_checked_like_a_file() -> None:
    changed = Recipe.load(
        "default",
        ["temperature=2", "loss=lovasz_focal", "augmentation.elastic = 0", "clip_norm=1"],
    )
    assert (changed.temperature, changed.loss, changed.clip_norm) == (2, "lovasz_focal", 1)
    assert changed.augmentation.elastic == 0
    for text in ("cycles", "=3", "loss.name=3", "colour=red", "precision=int4"):
        with pytest.raises(InvalidRecipe):
            Recipe.load("default", [text])


@pytest.mark.parametrize("key", ["temperature", "clip_norm"])
def test_an_infinite_temperature_or_norm_is_none_and_survives_json(key: str) -> None:
    plain, without = Recipe.load("default"), Recipe.load("default", [f"{key}=inf"])
    assert getattr(plain, key) is not None
    assert getattr(without, key) is None
    assert Recipe.model_validate_json(without.model_dump_json()) == without


NUMBERS = ("learning_rate", "dense_learning_rate", "weight_decay", "augmentation.elastic")


@pytest.mark.parametrize(
    "text",
    [f"{key}=inf" for key in NUMBERS]
    + [f"{key}=nan" for key in (*NUMBERS, "temperature", "clip_norm")]
    + ["temperature=0.01"],
)
def test_numbers_of_a_recipe_are_finite_whoever_sends_them(text: str) -> None:
    key, _, value = text.partition("=")
    with pytest.raises(InvalidRecipe, match=key):
        Recipe.load("default", [text])
    sent = json.loads(Recipe.load("default").model_dump_json())
    table, _, name = key.rpartition(".")
    (sent[table] if table else sent)[name] = float(value)
    with pytest.raises(ValidationError, match=name):
        Recipe.model_validate_json(json.dumps(sent))


def test_all_faults_of_a_recipe_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nloss = "hinge"\noptimiser = "adam"\nlearning_rate = -1\n'
        'weight_decay = 0\nschedule = "plateau"\ncycles = 0\nbatch_voxels = 4096\n'
        "colour = 3\n[augmentation]\nelastic = 2\n"
    )
    with pytest.raises(InvalidRecipe) as caught:
        Recipe.load(str(file))
    assert "clip_norm" in caught.value.hint and "augmentation.elastic" in caught.value.hint
    for fault in ("loss", "learning_rate", "cycles", "colour", "elastic", str(file)):
        assert fault in caught.value.message


@pytest.mark.parametrize("content", [None, b"name = ", b"\xff\xfe"])
def test_a_recipe_that_cannot_be_read_names_its_file_and_the_bundled_ones(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRecipe, match=r"mine\.toml") as caught:
        Recipe.load(str(file))
    assert all(name in caught.value.hint for name in BUNDLED)


def test_dense_networks_have_a_rate_of_their_own_unless_one_is_given_for_the_run() -> None:
    recipe = Recipe.load("default")
    assert recipe.suited_to("separable") == recipe
    assert recipe.suited_to("dense").learning_rate == recipe.dense_learning_rate
    assert recipe.dense_learning_rate < recipe.learning_rate
    given = Recipe.load("default", learning_rate=0.1)
    assert given.suited_to("dense").learning_rate == 0.1
    given = Recipe.load("default", ["learning_rate=0.1"])
    assert given.suited_to("dense").learning_rate == 0.1
    both = Recipe.load("default", ["learning_rate=0.1", "dense_learning_rate=0.2"])
    assert both.suited_to("dense").learning_rate == 0.2
    paper = Recipe.load("paper")
    assert paper.suited_to("dense") == paper
