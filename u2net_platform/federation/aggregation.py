"""From the updates of sites to one: checked, weighted, summed in one order.

An update is what a site adds to the weights that it was given. All here is a pure function, so
that the same replies give the same bytes, in whatever order they came.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from u2net_platform.model.partition import BACKBONE

if TYPE_CHECKING:
    from u2net_platform.federation.request import Rules

MOST_EXAMPLES = 1_000_000
LARGEST_RATE = 3.0  # more was not measured

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Contribution:
    """A site's updates by owner: the backbone's, and those of domains that it shares.

    examples, steps: of all its domains. by_domain: the examples of each.
    """

    site: str
    updates: Mapping[str, Weights]
    examples: int
    steps: int
    by_domain: Mapping[str, int] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """Of the update of the backbone."""
        return norm_of(self.updates.get(BACKBONE, {}))


class Refused(Exception):
    """A reply is left out; `reason` is one word, as the catalog keeps it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check(one: Contribution, held: Mapping[str, Weights], rules: Rules) -> None:
    """Look at a contribution before it may change anything.

    held: by owner, the weights that the site was given and has to answer for.

    Raises:
        Refused: WrongKeys, WrongType, WrongShape, NotFinite, TooLarge or WrongWeight.
    """
    for count in (one.examples, one.steps, *one.by_domain.values()):
        if not 1 <= count <= MOST_EXAMPLES:
            raise Refused("WrongWeight")
    if one.updates.keys() != held.keys() or not held.keys() <= {BACKBONE, *one.by_domain}:
        raise Refused("WrongKeys")
    for owner, update in one.updates.items():
        _check_update(update, held[owner], rules.largest_update)


def _check_update(update: Weights, weights: Weights, largest: float) -> None:
    if update.keys() != weights.keys():
        raise Refused("WrongKeys")
    for name, tensor in update.items():
        if tensor.dtype != weights[name].dtype:
            raise Refused("WrongType")
        if tensor.shape != weights[name].shape:
            raise Refused("WrongShape")
    norm = norm_of(update)
    # The norm of finite values may be infinite, and that of NaN is NaN.
    if not all(bool(torch.isfinite(tensor).all()) for tensor in update.values()):
        raise Refused("NotFinite")
    if not norm <= largest * norm_of(weights):
        raise Refused("TooLarge")


def norm_of(tensors: Weights) -> float:
    """Euclidean norm over all tensors, in double precision."""
    squares = (float(tensors[name].double().square().sum()) for name in sorted(tensors))
    return math.sqrt(sum(squares))


def weight_of(one: Contribution, owner: str, rules: Rules) -> int:
    """With what a site's update of an owner counts: of a domain, with what it has of that one. Its
    domains take turns, so all sites make as many steps of each."""
    examples, steps = one.examples, one.steps
    if owner != BACKBONE:
        examples, steps = one.by_domain[owner], 1
    return min({"examples": examples, "steps": steps, "equal": 1}[rules.weigh_by], rules.cap)


def own_rate(domains: Sequence[Collection[str]]) -> float:
    """How many sites' worth of different domains the sites hold, at most `LARGEST_RATE`.

    It is 1 where all hold the same, whose changes agree: that is FedAvg. Where all differ it is
    their number: the changes are nearly at right angles, and a network trained in one place would
    make all of them one after another, not their mean.
    """
    different = len(set().union(*domains))
    return min(LARGEST_RATE, different * len(domains) / sum(map(len, domains)))


def mean_update(owner: str, contributions: Sequence[Contribution], rules: Rules) -> Weights | None:
    """The weighted mean of an owner's updates over the sites that sent one; None if none did.

    Summed in double precision in the order of the sites' names.
    """
    sent = sorted((one for one in contributions if owner in one.updates), key=lambda one: one.site)
    if not sent:
        return None
    total = sum(weight_of(one, owner, rules) for one in sent)
    mean = {
        name: torch.zeros_like(t, dtype=torch.float64) for name, t in sent[0].updates[owner].items()
    }
    for one in sent:
        for name, tensor in one.updates[owner].items():
            mean[name].add_(tensor.double(), alpha=weight_of(one, owner, rules) / total)
    return mean


def apply_update(
    weights: Weights, update: Weights, momentum: Weights | None, decay: float, rate: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights after a round, and the momentum for the next one (double precision)."""
    if momentum is None or not decay:
        kept = {name: tensor.clone() for name, tensor in update.items()}
    else:
        kept = {name: decay * momentum[name] + tensor for name, tensor in update.items()}
    moved = {
        name: (tensor.double() + rate * kept[name]).to(tensor.dtype)
        for name, tensor in weights.items()
    }
    return moved, kept
