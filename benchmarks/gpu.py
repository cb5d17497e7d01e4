"""A training step on a GPU: as CUDA graphs, kernel by kernel, and beside the dense network's.

    .venv/bin/python benchmarks/gpu.py [--compiled] [--seconds 3]

A step is forward, loss, backward, clipping and optimiser on one batch that lies on the GPU already,
with the default recipe. Each row has one batch and one precision. *Graph* is the universal network
as it is trained, *launched* the same without graphs, *compiled* (only if asked for: it compiles for
minutes) the same through torch.compile, and *dense* the network of mode shared, as a graph. Ratios
above 1 say how many times faster *graph* is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from u2net_platform.model.losses import LOSSES
from u2net_platform.model.network import build_network
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.training.acceleration import accelerate
from u2net_platform.training.recipe import Recipe

CUDA = torch.device("cuda")
CUBE = ((2, 2, 2),) * 3 + ((1, 1, 1),) * 2
TOPOLOGY = Topology(in_channels=1, classes=3, kernels_zyx=((3, 3, 3),) * 6, strides_zyx=CUBE)
BATCHES = ((2, 40, 56, 40), (9, 40, 56, 40), (2, 128, 128, 128))  # patches, z, y, x
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device here, or this torch is not built for one.")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| batch | precision | graph, ms | launched | compiled | dense |")
    print("|---|---|---:|---:|---:|---:|")
    for batch in BATCHES:
        for precision in ("float32", "bfloat16"):
            recipe = Recipe.load("default", [f"precision={precision}"])
            graph = _milliseconds("separable", None, recipe, batch, arguments.seconds)
            others = {
                "launched": ("separable", lambda network: network),
                "compiled": ("separable", torch.compile),
                "dense": ("dense", None),
            }
            cells = [
                f"{_milliseconds(*other, recipe, batch, arguments.seconds) / graph:.1f}"
                if name != "compiled" or arguments.compiled
                else "-"
                for name, other in others.items()
            ]
            size = " x ".join(map(str, batch))
            print(f"| {size} | {precision} | {graph:.2f} | {' | '.join(cells)} |", flush=True)


def _milliseconds(
    convolutions: str,
    forward_of: Callable[[nn.Module], Callable[..., Tensor]] | None,
    recipe: Recipe,
    batch: tuple[int, int, int, int],
    seconds: float,
) -> float:
    """Of one step, mean of as many as fit into the seconds. forward_of: None as it is trained."""
    architecture = Architecture(convolutions=convolutions)  # type: ignore[arg-type]
    network = build_network(architecture, {"a": TOPOLOGY}).to(CUDA)
    acceleration = accelerate(network, recipe, CUDA)
    forward = forward_of(network) if forward_of else acceleration.forward
    parameters = list(network.parameters())
    optimiser = AdamW(parameters, recipe.learning_rate, fused=True)
    patches, *sides = batch
    images = torch.randn(patches, 1, *sides, device=CUDA)
    labels = torch.randint(0, TOPOLOGY.classes, (patches, *sides), device=CUDA)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with acceleration.autocast():
            logits = forward(images, domain="a")
        LOSSES[recipe.loss](logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()

    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    started, steps = time.monotonic(), 0
    while (now := time.monotonic() - started) < seconds:
        step()
        torch.cuda.synchronize()
        steps += 1
    return 1000 * now / steps


if __name__ == "__main__":
    main()
