"""What a GPU takes to be fast: steps as CUDA graphs, bfloat16, batches made by many cores."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import joblib
import torch
from torch import Tensor, nn

from u2net_platform.model.network import UniversalUNet
from u2net_platform.training.recipe import Recipe

MOST_WORKERS = 32


@dataclass(frozen=True)
class Acceleration:
    """`forward` stands for the network while training, within `autocast()`.

    notes: what the recipe asks for and this device does not give, for the user to read.
    """

    forward: Callable[..., Tensor]
    autocast: Callable[[], AbstractContextManager[object]]
    notes: tuple[str, ...]


def accelerate(network: UniversalUNet, recipe: Recipe, device: torch.device) -> Acceleration:
    """What pays on this device; weights stay float32."""
    notes = []
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    if recipe.precision == "bfloat16":
        if device.type == "cuda" and torch.cuda.is_bf16_supported():

            def autocast() -> AbstractContextManager[object]:
                # No cache of cast weights: it would outlive the capture of a graph.
                return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
        else:
            notes.append(
                f"precision = bfloat16 takes no effect on {device}: the step is computed in "
                "float32, which the network's own kernels need"
            )
    forward = _Graphs(network) if device.type == "cuda" else network
    return Acceleration(forward, autocast, tuple(notes))


def workers_for(device: torch.device) -> int:
    """Processes that make batches: one keeps up with a CPU; a GPU gets all cores but one."""
    if device.type == "cpu":
        return 1
    spare: int = joblib.cpu_count() - 1
    return min(MOST_WORKERS, max(1, spare))


class _Graphs:
    """The network with its gradient as CUDA graphs, one for each domain and shape of a batch.

    A step is about a thousand short kernels, which take longer to launch one by one than to run.
    The result is the same.
    """

    def __init__(self, network: UniversalUNet) -> None:
        self._network = network
        self._graphs: dict[tuple[str, torch.Size], Callable[[Tensor], Tensor]] = {}
        self._memory: Any = None
        # Gradients come from the stream of a capture: torch waits for it, and would say so.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)

    def __call__(self, x: Tensor, *, domain: str) -> Tensor:
        key = (domain, x.shape)
        if key not in self._graphs:
            # Graphs of a trainer before lie in a cycle of references, and a graph that is freed
            # while another is captured spoils that.
            gc.collect()
            # One memory for all: what a step keeps for its gradient is free when the next begins.
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            part = _OfDomain(self._network, domain)
            graph = torch.cuda.make_graphed_callables(part, (x.clone(),), pool=self._memory)
            self._graphs[key] = cast(Callable[[Tensor], Tensor], graph)
        return self._graphs[key](x)


class _OfDomain(nn.Module):
    """The network for one domain, with no parameters but those that take part."""

    def __init__(self, network: UniversalUNet, domain: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList([network.backbone, network.domains[domain]])
        # Within `partial` torch does not register it.
        self._forward: Callable[[Tensor], Tensor] = partial(network, domain=domain)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x)
