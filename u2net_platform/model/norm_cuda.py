"""Instance norm with LeakyReLU and its gradient as Triton kernels, for CUDA.

A pass over a volume for its sums, one for the result; what lies between the norm and the LeakyReLU
is computed anew. No kernel adds atomically: results are the same in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

VOXELS = 2048  # of a channel, that one program reads at once
PARTS = 64  # at most, among which the voxels of a channel are divided
VOXELS_PER_WARP = 256


class NormActivation(torch.autograd.Function):
    """x: b c z y x, float32, bfloat16 or float16, as the result is. weight and bias: c."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, slope: float
    ) -> Tensor:
        x = x.contiguous()
        launch = _Launch(x)
        sums, y = launch.sums(), torch.empty_like(x)
        statistics = torch.empty((2, launch.grid[1]), dtype=torch.float32, device=x.device)
        launch(_sums_kernel, x, sums)
        own = (x, weight, bias, sums, y, statistics, x.shape[1], epsilon, slope)
        launch(_norm_kernel, *own, PARTS=launch.parts)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        launch = _Launch(x)
        sums, of_x = launch.sums(), torch.empty_like(x)
        own = (x, gradient.contiguous(), weight, bias, statistics)
        launch(_gradient_sums_kernel, *own, sums, x.shape[1], ctx.slope)
        launch(_gradient_kernel, *own, sums, of_x, x.shape[1], ctx.slope, PARTS=launch.parts)
        of_bias, of_weight = sums.unflatten(1, x.shape[:2]).sum((1, 3))
        return of_x, of_weight.to(weight.dtype), of_bias.to(bias.dtype), None, None


class _Launch:
    """Kernels over all channels of all volumes, each of which is divided into parts."""

    def __init__(self, x: Tensor) -> None:
        self.device, self.size = x.device, x[0, 0].numel()
        self.voxels = min(VOXELS, triton.next_power_of_2(self.size))
        parts = min(PARTS, triton.cdiv(self.size, self.voxels))
        self.each = triton.cdiv(triton.cdiv(self.size, parts), self.voxels) * self.voxels
        self.grid = (triton.cdiv(self.size, self.each), x.shape[0] * x.shape[1])
        self.parts = triton.next_power_of_2(self.grid[0])

    def sums(self) -> Tensor:
        """Two of each part: 2, channels of all volumes, parts."""
        return torch.empty((2, self.grid[1], self.grid[0]), dtype=torch.float32, device=self.device)

    def __call__(self, kernel: Any, *arguments: object, **constants: int) -> None:
        warps = max(1, min(8, self.voxels // VOXELS_PER_WARP))
        kernel[self.grid](
            *arguments, self.size, self.each, VOXELS=self.voxels, num_warps=warps, **constants
        )


@triton.jit
def _sums_kernel(x, sums, size, each, VOXELS: tl.constexpr):
    """Of the differences from the channel's middle voxel, and of their squares."""
    row = tl.program_id(1)
    x += row.to(tl.int64) * size
    middle = tl.load(x + size // 2).to(tl.float32)
    total = tl.zeros((VOXELS,), tl.float32)
    squares = tl.zeros((VOXELS,), tl.float32)
    for start in range(0, each, VOXELS):
        at = tl.program_id(0) * each + start + tl.arange(0, VOXELS)
        value = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32) - middle
        value = tl.where(at < size, value, 0.0)
        total += value
        squares += value * value
    _store_sums(sums, row, tl.sum(total, 0), tl.sum(squares, 0))


@triton.jit(do_not_specialize=["c"])
def _norm_kernel(
    x, weight, bias, sums, y, statistics, c, epsilon, slope, size, each,
    PARTS: tl.constexpr, VOXELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    x += row.to(tl.int64) * size
    y += row.to(tl.int64) * size
    total, squares = _load_sums(sums, row, PARTS)
    difference = total / size
    mean = tl.load(x + size // 2).to(tl.float32) + difference
    variance = tl.maximum(squares / size - difference * difference, 0.0)
    inverse = 1.0 / tl.sqrt(variance + epsilon)
    tl.store(statistics + row, mean)
    tl.store(statistics + tl.num_programs(1) + row, inverse)
    factor = tl.load(weight + row % c).to(tl.float32) * inverse
    constant = tl.load(bias + row % c).to(tl.float32)
    for start in range(0, each, VOXELS):
        at = tl.program_id(0) * each + start + tl.arange(0, VOXELS)
        value = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32)
        value = (value - mean) * factor + constant
        value = tl.where(value > 0, value, slope * value)
        tl.store(y + at, value.to(y.dtype.element_ty), mask=at < size)


@triton.jit(do_not_specialize=["c"])
def _gradient_sums_kernel(
    x, gradient, weight, bias, statistics, sums, c, slope, size, each, VOXELS: tl.constexpr
):  # fmt: skip
    """Of the gradient of the norm's result, and of its products with what the norm scales."""
    row = tl.program_id(1)
    x += row.to(tl.int64) * size
    gradient += row.to(tl.int64) * size
    total = tl.zeros((VOXELS,), tl.float32)
    products = tl.zeros((VOXELS,), tl.float32)
    for start in range(0, each, VOXELS):
        at = tl.program_id(0) * each + start + tl.arange(0, VOXELS)
        normed, through = _through(x, gradient, weight, bias, statistics, row, c, slope, at, size)
        total += through
        products += through * normed
    _store_sums(sums, row, tl.sum(total, 0), tl.sum(products, 0))


@triton.jit(do_not_specialize=["c"])
def _gradient_kernel(
    x, gradient, weight, bias, statistics, sums, of_x, c, slope, size, each,
    PARTS: tl.constexpr, VOXELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    x += row.to(tl.int64) * size
    gradient += row.to(tl.int64) * size
    of_x += row.to(tl.int64) * size
    total, products = _load_sums(sums, row, PARTS)
    factor = tl.load(statistics + tl.num_programs(1) + row)
    factor *= tl.load(weight + row % c).to(tl.float32)
    for start in range(0, each, VOXELS):
        at = tl.program_id(0) * each + start + tl.arange(0, VOXELS)
        normed, through = _through(x, gradient, weight, bias, statistics, row, c, slope, at, size)
        value = factor * (through - (total + normed * products) / size)
        tl.store(of_x + at, value.to(of_x.dtype.element_ty), mask=at < size)


@triton.jit
def _through(x, gradient, weight, bias, statistics, row, c, slope, at, size):  # fmt: skip
    """Voxels before scale and bias, and the gradient there; both 0 beyond the channel's end."""
    mean = tl.load(statistics + row)
    inverse = tl.load(statistics + tl.num_programs(1) + row)
    value = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32)
    normed = tl.where(at < size, (value - mean) * inverse, 0.0)
    above = tl.load(gradient + at, mask=at < size, other=0.0).to(tl.float32)
    scaled = normed * tl.load(weight + row % c).to(tl.float32)
    positive = scaled + tl.load(bias + row % c).to(tl.float32) > 0
    return normed, tl.where(positive, above, slope * above)


@triton.jit
def _store_sums(sums, row, one, other):
    at = sums + row.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    tl.store(at, one)
    tl.store(at + tl.num_programs(1) * tl.num_programs(0), other)


@triton.jit
def _load_sums(sums, row, PARTS: tl.constexpr):
    part = tl.arange(0, PARTS)
    at = sums + row.to(tl.int64) * tl.num_programs(0) + part
    mask = part < tl.num_programs(0)
    one = tl.load(at, mask=mask, other=0.0)
    other = tl.load(at + tl.num_programs(1) * tl.num_programs(0), mask=mask, other=0.0)
    return tl.sum(one, 0), tl.sum(other, 0)
