"""Which cases train, which are watched while training, and which nobody sees before the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from u2net_platform.errors import InvalidRecipe, TooFewCases

WATCHED = 8  # subjects at most: more would tell little more, and be missing where they teach


@dataclass(frozen=True)
class Split:
    """Case ids. `validation` serves display and choices; only `training` is ever learned from."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        return self.training + self.validation + self.test


SubjectOf = Callable[[str], str]
Splitter = Callable[[Sequence[str], SubjectOf], Split]


def splitter(fold: int | None, learned: Collection[str] = ()) -> Splitter:
    """`split_cases`, but for the cases and whom they show."""
    return lambda ids, subject_of: split_cases(ids, fold, subject_of, learned)


def split_cases(
    ids: Sequence[str],
    fold: int | None,
    subject_of: SubjectOf = str,
    learned: Collection[str] = (),
    seed: int = 0,
    folds: int = 5,
) -> Split:
    """Split for one fold of a cross-validation, the same whatever the order of `ids`.

    All cases of a subject are in one part. A fold of the subjects is tested; a tenth of those that
    remain (at least one, if five or more remain, and eight at most) is watched. Fewer than folds
    are tested one by one; a single one only trains.

    fold: None tests no case, so that more are learned from.
    subject_of: whom a case shows; each another, unless given.
    learned: cases that the first weights have learned from. They, and the other cases of whom they
        show, train, and are nothing else.

    Raises:
        TooFewCases: there is no case.
        InvalidRecipe: there is no such fold.
    """
    if not ids:
        raise TooFewCases("There is no case to split", "Add training cases to the data set.")
    if fold is not None and not 0 <= fold < folds:
        raise InvalidRecipe(f"There is no fold {fold}", f"Choose one of 0..{folds - 1}.")
    subjects = _shuffled({subject_of(name) for name in ids}, seed)
    groups = min(folds, len(subjects))
    known = {subject_of(name) for name in learned}
    unseen = [one for one in subjects if one not in known]
    tested: set[str] = set()
    if fold is not None and groups > 1:
        tested = {*subjects[fold % groups :: groups]} & {*unseen}
    rest = len(subjects) - len(tested)
    watch = min(WATCHED, max(1, rest // 10)) if rest >= 5 else 0
    watched = {*[one for one in unseen if one not in tested][:watch]}
    order = _shuffled(ids, seed)
    return Split(
        training=tuple(name for name in order if subject_of(name) not in tested | watched),
        validation=tuple(name for name in order if subject_of(name) in watched),
        test=tuple(name for name in order if subject_of(name) in tested),
    )


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Ordered by digest, which no version of a random generator can change."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
