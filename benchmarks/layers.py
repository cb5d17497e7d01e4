"""The network's own layers, forward and backward, beside torch's, in one run.

    .venv/bin/python benchmarks/layers.py [--device cpu] [--threads 2] [--seconds 0.3]

A ratio above 1 says how many times faster ours is. *Channels-last* and *default* are torch's in
these layouts; ours has the first on the CPU and the second on CUDA. Norms are beside torch's in
whichever of the two is faster. Every channel-wise convolution
that the network makes with the plans of six real data sets (recipe default) is timed, strided ones
included: the table has the finest level, and the worst of all; and of each level a pointwise one,
beside torch's in the layout of ours. On a GPU all is replayed as CUDA
graphs, as it is in training. The last columns, of use on a GPU, say what part
of the time a copy of as many bytes takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.memory import keep_freed_memory
from u2net_platform.model.channelwise import Triple, channelwise_conv3d
from u2net_platform.model.device import laid_out
from u2net_platform.model.network import Convolution
from u2net_platform.model.norm import EPSILON, SLOPE, NormActivation

ALL, FLAT = (3, 3, 3), (1, 3, 3)
PLANS = {  # patch, strides, kernels of the levels; two patches a batch
    "hippocampus": ((40, 56, 40), ((2, 2, 2),) * 3, (ALL,) * 4),
    "heart": ((32, 48, 80), ((2, 2, 2),) * 3 + ((1, 1, 2),), (ALL,) * 5),
    "prostate, spleen": (
        (12, 96, 96), ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2)), (FLAT, FLAT, ALL, ALL, ALL),
    ),
    "liver": ((24, 64, 80), ((2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)), (ALL,) * 5),
    "pancreas": (
        (20, 80, 80), ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)), (FLAT, ALL, ALL, ALL, ALL),
    ),
    "cube of 96": ((96, 96, 96), (), (ALL,)),
}  # fmt: skip
CHANNELS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Layer:
    """A channel-wise convolution of two volumes, c z y x."""

    shape: tuple[int, int, int, int]
    kernel: Triple
    stride: Triple = (1, 1, 1)


@dataclass(frozen=True)
class Times:
    """Seconds forward and backward; of ours forward alone, and of a copy of the volumes."""

    ours: float
    channels_last: float
    default: float
    forward: float
    copy: float


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        keep_freed_memory(of_any_size=True)
    print(
        "| plan | layers | channels-last / ours: finest | worst | default / ours: finest | worst "
        "| norm and activation, torch's faster layout / ours: finest | worst "
        "| pointwise: finest | worst "
        "| copy / forward | copies / gradients |"
    )
    print("|---" * 12 + "|")
    for name, (patch, strides, kernels) in PLANS.items():
        layers = list(_layers(patch, strides, kernels))
        times = [_convolution(layer, arguments) for layer in layers]
        levels = [layer for layer in layers if layer.stride == (1, 1, 1)]
        norms = [_norm(layer, arguments) for layer in levels]
        pointwise = [_pointwise(layer, arguments) for layer in levels]
        last = [one.channels_last / one.ours for one in times]
        default = [one.default / one.ours for one in times]
        print(
            f"| {name} | {len(layers)} | {last[0]:.1f} | {min(last):.1f} | {default[0]:.1f} "
            f"| {min(default):.1f} | {norms[0]:.1f} | {min(norms):.1f} "
            f"| {pointwise[0]:.1f} | {min(pointwise):.1f} "
            f"| {times[0].copy / times[0].forward:.0%} "
            # Each of the two gradients has to move as many bytes as a copy.
            f"| {2 * times[0].copy / (times[0].ours - times[0].forward):.0%} |",
            flush=True,
        )


def _layers(
    patch: Triple, strides: tuple[Triple, ...], kernels: tuple[Triple, ...]
) -> Iterator[Layer]:
    """Of each level the one that keeps its shape, and the strided one to the next."""
    sides = patch
    for level, kernel in enumerate(kernels):
        yield Layer((CHANNELS[level], *sides), kernel)
        if level < len(strides):
            yield Layer((CHANNELS[level], *sides), kernel, strides[level])
            z, y, x = (side // by for side, by in zip(sides, strides[level], strict=True))
            sides = (z, y, x)


def _convolution(layer: Layer, arguments: argparse.Namespace) -> Times:
    x = torch.randn(2, *layer.shape, device=arguments.device)
    weight = torch.randn(layer.shape[0], 1, *layer.kernel, device=arguments.device)
    weight.requires_grad_()
    padding = [side // 2 for side in layer.kernel]

    def ours(x: Tensor) -> Tensor:
        return channelwise_conv3d(x, weight, layer.stride)

    def theirs(x: Tensor) -> Tensor:
        return F.conv3d(x, weight, None, layer.stride, padding, groups=layer.shape[0])

    last, own = x.to(memory_format=torch.channels_last_3d), laid_out(x)
    target = torch.empty_like(own)
    works = (
        _both_ways(ours, own, weight), _both_ways(theirs, last, weight),
        _both_ways(theirs, x, weight),
        _forward(ours, own), lambda: target.copy_(own),
    )  # fmt: skip
    return Times(*_seconds(works, arguments))


def _norm(layer: Layer, arguments: argparse.Namespace) -> float:
    norm = NormActivation(layer.shape[0]).to(arguments.device)
    x = torch.randn(2, *layer.shape, device=arguments.device)
    last = x.to(memory_format=torch.channels_last_3d)

    def theirs(x: Tensor) -> Tensor:
        normed = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=EPSILON)
        return F.leaky_relu_(normed, SLOPE)

    sides = (theirs, x), (theirs, last), (norm, laid_out(x))
    works = [_both_ways(layer, x, norm.weight, norm.bias) for layer, x in sides]
    *torch_s, our_s = _seconds(works, arguments)
    return min(torch_s) / our_s


def _pointwise(layer: Layer, arguments: argparse.Namespace) -> float:
    channels = layer.shape[0]
    convolution = Convolution(channels, channels, (1, 1, 1)).to(arguments.device)
    torch.nn.init.normal_(convolution.weight)
    x = laid_out(torch.randn(2, *layer.shape, device=arguments.device))

    def theirs(x: Tensor) -> Tensor:
        return F.conv3d(x, convolution.weight)

    works = [_both_ways(one, x, convolution.weight) for one in (theirs, convolution)]
    torch_s, our_s = _seconds(works, arguments)
    return torch_s / our_s


def _forward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    @torch.no_grad()
    def work() -> None:
        layer(x)

    return work


def _both_ways(
    layer: Callable[[Tensor], Tensor], x: Tensor, *weights: Tensor
) -> Callable[[], object]:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.no_grad():
        gradient = torch.ones_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), (x, *weights), gradient)


def _seconds(works: Sequence[Callable[[], object]], arguments: argparse.Namespace) -> list[float]:
    """The best of as many rounds as fit into the budget of each, at least three, after one to warm
    up; in turn, so that what else the machine does meets all alike."""
    wait: Callable[[], object] = lambda: None  # noqa: E731
    if arguments.device != "cpu":
        works, wait = [_replayed(work) for work in works], torch.cuda.synchronize
    rounds: list[list[float]] = []
    while len(rounds) < 4 or sum(map(sum, rounds)) < arguments.seconds * len(works):
        rounds.append([])
        for work in works:
            started = time.perf_counter()
            work()
            wait()
            rounds[-1].append(time.perf_counter() - started)
    return [min(times) for times in zip(*rounds[1:], strict=True)]


def _replayed(work: Callable[[], object]) -> Callable[[], object]:
    """As a CUDA graph: launching takes longer than most layers."""
    with torch.cuda.stream(torch.cuda.Stream()):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each timing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
