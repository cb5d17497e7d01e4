"""Which cases train, which are watched while training, and which nobody sees before the end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from u2net_platform.errors import InvalidRecipe, TooFewCases


@dataclass(frozen=True)
class Split:
    """Case ids. `validation` serves display and choices; only `training` is ever learned from."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_cases(ids: Sequence[str], fold: int, seed: int = 0, folds: int = 5) -> Split:
    """Split for one fold of a cross-validation, the same whatever the order of `ids`.

    A fold is tested; a tenth of what remains (at least one case, if five or more remain) is
    watched. Fewer cases than folds are tested one by one; a single case only trains.

    Raises:
        TooFewCases: there is no case.
        InvalidRecipe: there is no such fold.
    """
    if not ids:
        raise TooFewCases("There is no case to split", "Add training cases to the data set.")
    if not 0 <= fold < folds:
        raise InvalidRecipe(f"There is no fold {fold}", f"Choose one of 0..{folds - 1}.")
    # Ordered by digest, which no version of a random generator can change.
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if len(order) == 1:
        return Split(tuple(order), (), ())
    groups = min(folds, len(order))
    test = order[fold % groups :: groups]
    rest = [name for name in order if name not in set(test)]
    watched = max(1, len(rest) // 10) if len(rest) >= 5 else 0
    return Split(tuple(rest[watched:]), tuple(rest[:watched]), tuple(test))
