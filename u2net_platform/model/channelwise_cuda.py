"""The channel-wise convolution of stride 1 and both its gradients as Triton kernels, for CUDA.

Volumes lie in torch's default layout. A program walks through the planes of one channel, and reads
each but once for all the planes that it adds to. Sums are in float32 whatever the volumes are in.
No kernel adds atomically: results are the same in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

VOXELS, GRADIENT_VOXELS = 512, 128  # of a plane, that one program computes at once
PLANES, GRADIENT_PLANES = 8, 16  # that one program walks through
WARP = 32


class Channelwise(torch.autograd.Function):
    """x: b c z y x, float32, bfloat16 or float16, as the result is. weight: c 1 kz ky kx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _convolved(gradient, weight.flip(2, 3, 4))
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient, weight)
        return of_x, of_weight


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    b, c, z, y, w = x.shape
    out = torch.empty_like(x)
    voxels = min(VOXELS, triton.next_power_of_2(y * w))
    grid = (triton.cdiv(y * w, voxels), triton.cdiv(z, PLANES), b * c)
    _convolve_kernel[grid](
        x, weight.contiguous(), out, c, z, y, w, *weight.shape[2:], PLANES, voxels,
        num_warps=_warps(voxels),
    )  # fmt: skip
    return out


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    b, c, z, y, w = x.shape
    kz, ky, kx = weight.shape[2:]
    voxels = min(GRADIENT_VOXELS, triton.next_power_of_2(y * w))
    grid = (triton.cdiv(y * w, voxels), triton.cdiv(z, GRADIENT_PLANES), b * c)
    taps = triton.next_power_of_2(ky * kx)
    parts = torch.empty((grid[0], grid[1], b, c, kz, taps), dtype=torch.float32, device=x.device)
    _weight_gradient_kernel[grid](
        x, gradient, parts, z, y, w, kz, ky, kx, taps, GRADIENT_PLANES, voxels,
        num_warps=_warps(voxels),
    )  # fmt: skip
    return parts.sum((0, 1, 2))[..., : ky * kx].reshape(weight.shape).to(weight.dtype)


def _warps(voxels: int) -> int:
    return max(1, min(4, voxels // WARP))


@triton.jit(do_not_specialize=["c", "sz", "sy", "sx"])
def _convolve_kernel(
    x, weight, out, c, sz, sy, sx,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    PLANES: tl.constexpr, VOXELS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    first = tl.program_id(1) * PLANES
    volume = tl.program_id(2)
    plane = sy * sx
    y, u = place // sx, place % sx
    x += volume.to(tl.int64) * sz * plane
    out += volume.to(tl.int64) * sz * plane
    weight += volume % c * (KZ * KY * KX)
    before = tl.zeros((VOXELS,), tl.float32)  # the sums of plane z - 1,
    here = tl.zeros((VOXELS,), tl.float32)  # of plane z,
    for z in range(first - KZ // 2, first + PLANES + KZ // 2):
        after = tl.zeros((VOXELS,), tl.float32)  # and of plane z + 1
        is_plane = (z >= 0) & (z < sz)
        for tap in tl.static_range(KY * KX):
            dy = tap // KX - KY // 2
            dx = tap % KX - KX // 2
            inside = is_plane & (y + dy >= 0) & (y + dy < sy) & (u + dx >= 0) & (u + dx < sx)
            at = z * plane + place + dy * sx + dx
            value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
            if KZ == 3:
                after += value * tl.load(weight + tap).to(tl.float32)
                here += value * tl.load(weight + KY * KX + tap).to(tl.float32)
                before += value * tl.load(weight + 2 * KY * KX + tap).to(tl.float32)
            else:
                before += value * tl.load(weight + tap).to(tl.float32)
        done = z - KZ // 2
        mask = (place < plane) & (done >= first) & (done < sz)
        tl.store(out + done * plane + place, before.to(out.dtype.element_ty), mask=mask)
        before = here
        here = after


@triton.jit(do_not_specialize=["sz", "sy", "sx"])
def _weight_gradient_kernel(
    x, gradient, parts, sz, sy, sx,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    TAPS: tl.constexpr, PLANES: tl.constexpr, VOXELS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    first = tl.program_id(1) * PLANES
    volume = tl.program_id(2)
    plane = sy * sx
    is_voxel = place < plane
    x += volume.to(tl.int64) * sz * plane
    gradient += volume.to(tl.int64) * sz * plane
    tap = tl.arange(0, TAPS)
    dy, dx = tap // KX - KY // 2, tap % KX - KX // 2
    y = (place // sx)[None, :] + dy[:, None]
    u = (place % sx)[None, :] + dx[:, None]
    inside = (tap < KY * KX)[:, None] & (y >= 0) & (y < sy) & (u >= 0) & (u < sx)
    shifted = place[None, :] + (dy * sx + dx)[:, None]
    sums = tl.zeros((TAPS, VOXELS), tl.float32)  # of the kernel's middle plane,
    sums_first = tl.zeros((TAPS, VOXELS), tl.float32)  # of its first, and of its last
    sums_last = tl.zeros((TAPS, VOXELS), tl.float32)
    for z in range(first, min(first + PLANES, sz)):
        value = tl.load(x + z * plane + shifted, mask=inside, other=0.0).to(tl.float32)
        above = gradient + z * plane + place
        sums += value * tl.load(above, mask=is_voxel, other=0.0).to(tl.float32)[None, :]
        if KZ == 3:
            after = tl.load(above + plane, mask=is_voxel & (z + 1 < sz), other=0.0)
            before = tl.load(above - plane, mask=is_voxel & (z > 0), other=0.0)
            sums_first += value * after.to(tl.float32)[None, :]
            sums_last += value * before.to(tl.float32)[None, :]
    row = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + volume
    at = parts + row.to(tl.int64) * KZ * TAPS + tap
    tl.store(at + KZ // 2 * TAPS, tl.sum(sums, 1))
    if KZ == 3:
        tl.store(at, tl.sum(sums_first, 1))
        tl.store(at + 2 * TAPS, tl.sum(sums_last, 1))
