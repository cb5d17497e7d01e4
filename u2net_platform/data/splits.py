"""Which cases train, which are watched while training, and which nobody sees before the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from u2net_platform.errors import InvalidRecipe, TooFewCases

WATCHED_CASES = 8  # at most: more would tell little more, and be missing where they teach


@dataclass(frozen=True)
class Split:
    """Case ids. `validation` serves display and choices; only `training` is ever learned from."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        return self.training + self.validation + self.test


Splitter = Callable[[Sequence[str]], Split]


def splitter(fold: int | None, learned: Collection[str] = ()) -> Splitter:
    """`split_cases`, but for the cases."""
    return partial(split_cases, fold=fold, learned=learned)


def split_cases(
    ids: Sequence[str],
    fold: int | None,
    seed: int = 0,
    folds: int = 5,
    learned: Collection[str] = (),
) -> Split:
    """Split for one fold of a cross-validation, the same whatever the order of `ids`.

    A fold is tested; a tenth of what remains (at least one case, if five or more remain, and eight
    at most) is watched. Fewer cases than folds are tested one by one; a single case only trains.

    fold: None tests no case, so that more are learned from.
    learned: cases that the first weights have learned from. They train, and are nothing else.

    Raises:
        TooFewCases: there is no case.
        InvalidRecipe: there is no such fold.
    """
    if not ids:
        raise TooFewCases("There is no case to split", "Add training cases to the data set.")
    if fold is not None and not 0 <= fold < folds:
        raise InvalidRecipe(f"There is no fold {fold}", f"Choose one of 0..{folds - 1}.")
    # Ordered by digest, which no version of a random generator can change.
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if len(order) == 1:
        return Split(tuple(order), (), ())
    groups = min(folds, len(order))
    known = set(learned)
    unseen = [name for name in order if name not in known]
    tested = set() if fold is None else {*order[fold % groups :: groups]} & {*unseen}
    rest = len(order) - len(tested)
    watch = min(WATCHED_CASES, max(1, rest // 10)) if rest >= 5 else 0
    watched = {*[name for name in unseen if name not in tested][:watch]}
    apart = tested | watched
    return Split(
        training=tuple(name for name in order if name not in apart),
        validation=tuple(name for name in order if name in watched),
        test=tuple(name for name in order if name in tested),
    )
