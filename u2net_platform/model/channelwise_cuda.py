"""The channel-wise convolution and both its gradients as Triton kernels, for CUDA.

Volumes lie channels-last, so that neighbouring threads read neighbouring channels. Sums are in
float32 whatever the volumes are in. No kernel adds atomically: results are the same in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

Triple = tuple[int, int, int]

VOXELS, CHANNELS = 32, 32  # that one program computes at once, or all channels where they are fewer
GRADIENT_VOXELS, GRADIENT_CHANNELS = 4, 16  # of the gradient of the weight, which has taps besides
PROGRAMS = 1024  # that the gradient of the weight is divided among


class Channelwise(torch.autograd.Function):
    """x: b c z y x, float32, bfloat16 or float16, as the result is. weight: c 1 kz ky kx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride_zyx: Triple) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        ctx.save_for_backward(x, weight)
        ctx.stride_zyx = stride_zyx
        sides = [-(-side // step) for side, step in zip(x.shape[2:], stride_zyx, strict=True)]
        return _gather(x, weight, sides, up=stride_zyx)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3, 4)
            of_x = _gather(gradient, flipped, list(x.shape[2:]), down=ctx.stride_zyx)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient, weight, ctx.stride_zyx)
        return of_x, of_weight, None


def _gather(
    x: Tensor,
    weight: Tensor,
    sides_zyx: list[int],
    up: Triple = (1, 1, 1),
    down: Triple = (1, 1, 1),
) -> Tensor:
    """Voxel o of the result sums w[k] x[(o up + k - K // 2) / down] where that is a voxel.

    `up` is the stride of a convolution; with the flipped kernel, `down` is that of its gradient.
    """
    b, c = x.shape[:2]
    out = torch.empty(
        (b, c, *sides_zyx), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
    )
    voxels, channels = out[:, 0].numel(), min(CHANNELS, triton.next_power_of_2(c))
    grid = (triton.cdiv(voxels, VOXELS), triton.cdiv(c, channels))
    _gather_kernel[grid](
        x, _by_tap(weight), out, voxels, c, *x.shape[2:], *sides_zyx,
        *up, *down, *weight.shape[2:], VOXELS, channels,
    )  # fmt: skip
    return out


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, stride_zyx: Triple) -> Tensor:
    c, taps = len(weight), weight[0].numel()
    voxels = gradient[:, 0].numel()
    programs = min(PROGRAMS, triton.cdiv(voxels, GRADIENT_VOXELS))
    each = triton.cdiv(triton.cdiv(voxels, programs), GRADIENT_VOXELS) * GRADIENT_VOXELS
    padded = triton.next_power_of_2(taps)
    parts = torch.empty((programs, padded, c), dtype=torch.float32, device=x.device)
    channels = min(GRADIENT_CHANNELS, triton.next_power_of_2(c))
    _weight_gradient_kernel[(programs, triton.cdiv(c, channels))](
        x, gradient, parts, voxels, c, each, *x.shape[2:], *gradient.shape[2:],
        *stride_zyx, *weight.shape[2:], padded, GRADIENT_VOXELS, channels,
    )  # fmt: skip
    return parts.sum(0)[:taps].T.reshape(weight.shape).to(weight.dtype)


def _by_tap(weight: Tensor) -> Tensor:
    """c 1 kz ky kx as taps c, contiguous."""
    return weight.flatten(1).T.contiguous()


@triton.jit
def _gather_kernel(
    x, weight, out, voxels, c, iz, iy, ix, oz, oy, ox,
    UZ: tl.constexpr, UY: tl.constexpr, UX: tl.constexpr,
    DZ: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    VOXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_voxel, is_channel = voxel < voxels, channel < c
    batch = voxel // (oz * oy * ox)
    z0 = voxel // (oy * ox) % oz * UZ - KZ // 2
    y0 = voxel // ox % oy * UY - KY // 2
    x0 = voxel % ox * UX - KX // 2
    total = tl.zeros((VOXELS, CHANNELS), tl.float32)
    for tap in tl.static_range(KZ * KY * KX):
        z, y, u = z0 + tap // (KY * KX), y0 + tap // KX % KY, x0 + tap % KX
        inside = is_voxel & (z >= 0) & (y >= 0) & (u >= 0)
        inside &= (z % DZ == 0) & (y % DY == 0) & (u % DX == 0)
        z, y, u = z // DZ, y // DY, u // DX
        inside &= (z < iz) & (y < iy) & (u < ix)
        place = (((batch * iz + z) * iy + y) * ix + u).to(tl.int64) * c
        at = place[:, None] + channel[None, :]
        value = tl.load(x + at, mask=inside[:, None] & is_channel[None, :], other=0.0)
        factor = tl.load(weight + tap * c + channel, mask=is_channel, other=0.0)
        total += value.to(tl.float32) * factor.to(tl.float32)[None, :]
    at = voxel.to(tl.int64)[:, None] * c + channel[None, :]
    mask = is_voxel[:, None] & is_channel[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _weight_gradient_kernel(
    x, gradient, parts, voxels, c, each, iz, iy, ix, oz, oy, ox,
    SZ: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    TAPS: tl.constexpr, VOXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channel < c
    tap = tl.arange(0, TAPS)
    kz, ky, kx = tap // (KY * KX) - KZ // 2, tap // KX % KY - KY // 2, tap % KX - KX // 2
    total = tl.zeros((VOXELS, TAPS, CHANNELS), tl.float32)
    for start in range(0, each, VOXELS):
        voxel = tl.program_id(0) * each + start + tl.arange(0, VOXELS)
        is_voxel = voxel < voxels
        z = (voxel // (oy * ox) % oz * SZ)[:, None] + kz[None, :]
        y = (voxel // ox % oy * SY)[:, None] + ky[None, :]
        u = (voxel % ox * SX)[:, None] + kx[None, :]
        inside = is_voxel[:, None] & (tap < KZ * KY * KX)[None, :]
        inside &= (z >= 0) & (y >= 0) & (u >= 0) & (z < iz) & (y < iy) & (u < ix)
        batch = voxel // (oz * oy * ox)
        place = (((batch[:, None] * iz + z) * iy + y) * ix + u).to(tl.int64) * c
        mask = inside[:, :, None] & is_channel[None, None, :]
        value = tl.load(x + place[:, :, None] + channel[None, None, :], mask=mask, other=0.0)
        at = voxel.to(tl.int64)[:, None] * c + channel[None, :]
        above = tl.load(gradient + at, mask=is_voxel[:, None] & is_channel[None, :], other=0.0)
        total += value.to(tl.float32) * above.to(tl.float32)[:, None, :]
    at = (tl.program_id(0) * TAPS + tap).to(tl.int64)[:, None] * c + channel[None, :]
    tl.store(parts + at, tl.sum(total, 0), mask=is_channel[None, :])
