"""Who trains, who is watched, who is tested."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2net_platform.data.splits import split_cases
from u2net_platform.errors import InvalidRecipe, TooFewCases


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=60, unique=True),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_every_case_is_in_exactly_one_part_whatever_the_order(
    ids: list[str], fold: int, seed: int
) -> None:
    split = split_cases(ids, fold, seed=seed)
    assert sorted(split.training + split.validation + split.test) == sorted(ids)
    assert split == split_cases(ids[::-1], fold, seed=seed)
    assert split.training


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 300))
def test_the_five_folds_test_every_case_once(count: int) -> None:
    ids = [f"case{index}" for index in range(count)]
    splits = [split_cases(ids, fold) for fold in range(5)]
    assert sorted(name for split in splits for name in split.test) == sorted(ids)
    assert {len(split.test) for split in splits} <= {count // 5, count // 5 + 1}


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (4, (3, 0, 1)), (7, (4, 1, 2)), (260, (200, 8, 52))],
)
def test_the_parts_have_their_sizes(count: int, sizes: tuple[int, int, int]) -> None:
    split = split_cases([str(index) for index in range(count)], fold=0)
    assert (len(split.training), len(split.validation), len(split.test)) == sizes


def test_of_no_fold_nothing_is_tested_and_a_tenth_is_watched() -> None:
    split = split_cases([str(index) for index in range(40)], fold=None)
    assert (len(split.training), len(split.validation), split.test) == (36, 4, ())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=60, unique=True),
    st.integers(0, 4) | st.none(),
    st.sets(st.text(max_size=5)),
    st.data(),
)
def test_cases_that_were_learned_from_train_and_the_others_stay_where_they_were_tested(
    ids: list[str], fold: int | None, others: set[str], data: st.DataObject
) -> None:
    learned = others | set(data.draw(st.lists(st.sampled_from(ids))))
    split, plain = split_cases(ids, fold, learned=learned), split_cases(ids, fold)
    assert sorted(split.cases) == sorted(ids)
    assert learned & set(ids) <= set(split.training)
    assert set(split.test) == set(plain.test) - learned


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=40, unique=True),
    st.integers(0, 4) | st.none(),
    st.sets(st.text("abc", min_size=1, max_size=4)),
)
def test_whom_several_cases_show_is_in_one_part(
    ids: list[str], fold: int | None, learned: set[str]
) -> None:
    split = split_cases(ids, fold, lambda name: name[0], learned)
    assert sorted(split.cases) == sorted(ids)
    parts = [{name[0] for name in part} for part in (split.training, split.validation, split.test)]
    assert sum(map(len, parts)) == len({name[0] for name in ids})
    assert not {name[0] for name in learned} & (parts[1] | parts[2])


def test_going_on_with_the_same_fold_and_cases_changes_no_part() -> None:
    split = split_cases([str(index) for index in range(40)], fold=2)
    again = split_cases([str(index) for index in range(40)], fold=2, learned=split.training)
    assert again == split


def test_a_split_is_the_same_for_ever() -> None:
    # Stored versions were tested on these; a changed split would test on what they learned from.
    assert split_cases([f"c{index:02d}" for index in range(10)], 1).test == ("c06", "c01")


def test_another_seed_is_another_split() -> None:
    ids = [str(index) for index in range(50)]
    assert split_cases(ids, 0, seed=0) != split_cases(ids, 0, seed=1)


def test_no_case_and_no_such_fold_are_refused() -> None:
    with pytest.raises(TooFewCases):
        split_cases([], 0)
    with pytest.raises(InvalidRecipe, match="fold 5"):
        split_cases(["a", "b"], 5)
