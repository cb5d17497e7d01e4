"""bfloat16 and torch.compile: where they take effect, and a word where they do not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from u2net_platform.model.network import UniversalUNet
from u2net_platform.training.recipe import Recipe


@dataclass(frozen=True)
class Acceleration:
    """`forward` stands for the network while training, within `autocast()`.

    notes: what the recipe asks for and this device does not give, for the user to read.
    """

    forward: Callable[..., Tensor]
    autocast: Callable[[], AbstractContextManager[object]]
    notes: tuple[str, ...]


def accelerate(network: UniversalUNet, recipe: Recipe, device: torch.device) -> Acceleration:
    """As much of what the recipe asks for as pays on this device; weights stay float32."""
    notes = []
    forward: Callable[..., Tensor] = network
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    if recipe.precision == "bfloat16":
        if device.type == "cuda" and torch.cuda.is_bf16_supported():

            def autocast() -> AbstractContextManager[object]:
                return torch.autocast(device.type, torch.bfloat16)
        else:
            notes.append(
                f"precision = bfloat16 takes no effect on {device}: the step is computed in "
                "float32, which the network's own kernels need"
            )
    if recipe.compiled:
        if device.type == "cuda":
            forward = torch.compile(network)
        else:
            notes.append(
                f"compiled = true takes no effect on {device}: most of a step is spent in the "
                "network's own kernels, which torch.compile leaves as they are"
            )
    return Acceleration(forward, autocast, tuple(notes))
