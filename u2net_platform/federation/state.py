"""What the coordinator keeps between two rounds, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from u2net_platform.catalog.records import RoundRecord
from u2net_platform.federation.messages import Description, Held
from u2net_platform.training.checkpoint import (
    load_checkpoint,
    save_checkpoint,
    with_prefix,
    without_prefix,
)


@dataclass
class State:
    """All that a round hands to the next one.

    confirmed: by site, its last round that was taken. held: by site. shared: domains whose weights
    are averaged, with the plan that all sites use for them.
    """

    weights: dict[str, dict[str, Tensor]]
    momentum: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    round: int = 0
    confirmed: dict[str, int] = field(default_factory=dict)
    held: dict[str, Description] = field(default_factory=dict)
    shared: dict[str, Held] = field(default_factory=dict)
    last: list[RoundRecord] = field(default_factory=list)

    def save(self, file: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for kind, owners in (("weights", self.weights), ("momentum", self.momentum)):
            for owner, part in owners.items():
                tensors |= with_prefix(f"{kind}/{owner}", part)
        held = {site: one.model_dump(mode="json") for site, one in self.held.items()}
        rounds = [one.model_dump(mode="json") for one in self.last]
        rest = {
            "round": self.round,
            "confirmed": self.confirmed,
            "held": held,
            "shared": {name: one.model_dump(mode="json") for name, one in self.shared.items()},
            "last": rounds,
        }
        save_checkpoint(file, tensors, rest)

    @classmethod
    def load(cls, file: Path) -> State:
        tensors, rest = load_checkpoint(file)
        return cls(
            weights=_by_owner(without_prefix("weights", tensors)),
            momentum=_by_owner(without_prefix("momentum", tensors)),
            round=rest["round"],
            confirmed=rest["confirmed"],
            held={site: Description.model_validate(one) for site, one in rest["held"].items()},
            shared={name: Held.model_validate(one) for name, one in rest["shared"].items()},
            last=[RoundRecord.model_validate(one) for one in rest["last"]],
        )


def _by_owner(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    owners: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        owner, _, name = key.partition("/")
        owners.setdefault(owner, {})[name] = tensor
    return owners
