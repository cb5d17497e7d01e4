"""Our two layers with gradients of their own, forward and backward, beside torch's, in one run.

    .venv/bin/python benchmarks/layers.py [--threads 2] [--repeats 5]

A ratio above 1 says how many times faster ours is. Both sides work in the channels-last layout;
`default` is torch's in its default layout. Shapes are those of the paper's patches at the finest
levels, at the batch that fits 2**19 voxels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.model.channelwise import channelwise_conv3d
from u2net_platform.model.norm import SLOPE, NormActivation
from u2net_platform.training.trainer import keep_freed_memory

SHAPES = {  # b c z y x
    "hippocampus, level 0": (5, 16, 40, 56, 40),
    "hippocampus, level 1": (5, 32, 20, 28, 20),
    "prostate, level 0": (2, 16, 16, 128, 128),
    "prostate, level 1": (2, 32, 16, 64, 64),
    "cube, level 0": (2, 16, 64, 64, 64),
}


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print("| shape | convolution: torch / ours | default / ours | norm: torch / ours |")
    print("|---|---|---|---|")
    for name, shape in SHAPES.items():
        ratios = " | ".join(f"{ratio:.1f}" for ratio in _ratios(shape, arguments.repeats))
        print(f"| {name} {shape} | {ratios} |")


def _ratios(shape: tuple[int, ...], repeats: int) -> tuple[float, float, float]:
    generator = torch.Generator().manual_seed(0)
    channels = shape[1]
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(channels, 1, 3, 3, 3, generator=generator).requires_grad_()
    norm = NormActivation(channels)

    def theirs(x: Tensor) -> Tensor:
        return F.conv3d(x, weight, padding=1, groups=channels)

    def their_norm(x: Tensor) -> Tensor:
        return F.leaky_relu_(F.instance_norm(x, weight=norm.weight, bias=norm.bias), SLOPE)

    last = x.to(memory_format=torch.channels_last_3d)
    ours = _seconds(lambda x: channelwise_conv3d(x, weight), last, repeats)
    return (
        _seconds(theirs, last, repeats) / ours,
        _seconds(theirs, x, repeats) / ours,
        _seconds(their_norm, last, repeats) / _seconds(norm, last, repeats),
    )


def _seconds(layer: Callable[[Tensor], Tensor], x: Tensor, repeats: int) -> float:
    """The best of some forward and backward passes, after one to warm up."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    gradient = torch.ones_like(x)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        layer(x).backward(gradient)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
