"""What a site may do to its update before it leaves: clip it, add noise, count what that spends.

The unit of privacy is the site's whole contribution of a round: nobody who sees all its updates can
tell well whether the site took part with its data or not at all. Source: Geyer, Klein, Nabi, arXiv
1712.07557, with the noise added at the site.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from u2net_platform.errors import BudgetSpent, Diverged, InvalidSite
from u2net_platform.federation.aggregation import Weights, norm_of
from u2net_platform.federation.site_config import PrivacyRules
from u2net_platform.files import exclusive, write_text


class Privacy:
    """A site's rules, and in `file` how often noise of which size has left it, over all runs."""

    def __init__(self, rules: PrivacyRules, file: Path) -> None:
        if rules.noise and not rules.clip:
            raise InvalidSite("[privacy] has noise without clip", "Set clip, the bound it scales.")
        if rules.largest_epsilon and not rules.noise:
            raise InvalidSite("[privacy] bounds epsilon without noise", "Set noise, or no bound.")
        self._rules, self._file = rules, file

    def require_room(self) -> None:
        """Stop before the work of a round whose update could not leave.

        Raises:
            BudgetSpent: one more round is more than the site allows.
            InvalidSite: what counts it is not installed.
        """
        after, limit = self.epsilon(more=1), self._rules.largest_epsilon
        if limit is not None and after is not None and after > limit:
            raise BudgetSpent(
                f"One more round would spend epsilon {after:.2f}, and {limit:g} is allowed",
                "Raise largest_epsilon in site.toml, if the site's people agree.",
            )

    def protect(self, updates: Mapping[str, Weights]) -> dict[str, dict[str, Tensor]]:
        """The updates by owner as they may leave; what this spends is on disk before.

        Raises:
            BudgetSpent: one more round is more than the site allows.
            Diverged: a number is not finite, which no clipping bounds and no noise hides.
        """
        whole = {f"{o}/{n}": t for o, update in updates.items() for n, t in update.items()}
        norm = norm_of(whole)
        if not math.isfinite(norm):
            raise Diverged("The update holds NaN or infinite values", "Ask for smaller steps.")
        if self._rules.clip:
            scale = min(1.0, self._rules.clip / max(norm, 1e-30))
            whole = {name: tensor * scale for name, tensor in whole.items()}
        if self._rules.noise:
            self._spend()
            deviation = self._rules.noise * self._rules.clip
            whole = {
                name: tensor + deviation * secret_normal(tensor.shape)
                for name, tensor in whole.items()
            }
        return {o: {n: whole[f"{o}/{n}"] for n in update} for o, update in updates.items()}

    def epsilon(self, more: int = 0) -> float | None:
        """What all rounds so far, and `more` like the next, spend at delta; None without noise."""
        if not self._rules.noise:
            return None
        spent = self._spent()
        key = repr(self._rules.noise)
        spent[key] = spent.get(key, 0) + more
        history = [(float(noise), 1.0, count) for noise, count in spent.items() if count]
        if not history:
            return 0.0
        accountant = _accountant()
        accountant.history = history
        return float(accountant.get_epsilon(self._rules.delta))

    def _spend(self) -> None:
        with exclusive(self._file.with_suffix(".lock"), wait=True):  # another run may spend too
            self.require_room()
            spent = self._spent()
            key = repr(self._rules.noise)
            spent[key] = spent.get(key, 0) + 1
            write_text(self._file, json.dumps(spent))

    def _spent(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return found


def secret_normal(shape: torch.Size) -> Tensor:
    """Standard normal numbers of the system's own randomness, all of it.

    A generator would stretch a seed: torch's takes 32 bits, so that whoever tries them all can take
    the noise off again.
    """
    whole = np.frombuffer(os.urandom(8 * prod(shape)), np.uint64) >> np.uint64(11)
    return torch.from_numpy(ndtri((whole + 0.5) / 2.0**53)).reshape(shape).float()


def _accountant() -> Any:
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise InvalidSite(
            "[privacy] asks for noise, and Opacus, which counts what it spends, is not installed",
            "Install it: pip install 'u2net-platform[privacy]'",
        ) from error
    return RDPAccountant()
