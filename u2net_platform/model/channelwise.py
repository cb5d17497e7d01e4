"""The channel-wise convolution, with gradients that are fast on the CPU, and on CUDA by Triton.

torch computes the gradients of a channel-wise 3D convolution on the CPU several times slower than
its forward pass. Both gradients can be had from fast forward-like kernels instead: the input's is a
convolution with the flipped kernel, the weight's is one 2D weight gradient for each plane of the
kernel, over slices that are free views in the channels-last layout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.model.device import in_triton

Triple = tuple[int, int, int]

FEW_VALUES = 1 << 18  # of a strided convolution's input, for which torch's gradients are as fast


def channelwise_conv3d(x: Tensor, weight: Tensor, stride_zyx: Triple = (1, 1, 1)) -> Tensor:
    """Convolve each channel with its own kernel, padded so that stride 1 keeps the shape.

    Args:
        x: b c z y x. Anything but five axes is refused: torch would take it for an unbatched one.
        weight: c 1 kz ky kx, each side of the kernel 1 or 3.

    Source: paper, section 2.2.
    """
    if x.dim() != 5:
        raise ValueError(f"expected b c z y x, got {tuple(x.shape)}")
    result: Tensor
    strided = stride_zyx != (1, 1, 1)
    if x.device.type == "cpu" and not (strided and x.numel() < FEW_VALUES):
        result = _Channelwise.apply(x, weight, stride_zyx)  # type: ignore[no-untyped-call]
    elif in_triton(x) and not strided:
        from u2net_platform.model.channelwise_cuda import Channelwise

        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        result = Channelwise.apply(x, weight)  # type: ignore[no-untyped-call]
    else:
        padding = _same(weight)
        result = F.conv3d(x, weight, stride=stride_zyx, padding=padding, groups=x.shape[1])
    return result


class _Channelwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Triple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv3d(x, weight, stride=stride, padding=_same(weight), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = _unstrided(gradient, x, ctx.stride)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3, 4)
            of_x = F.conv3d(gradient, flipped, padding=_same(weight), groups=x.shape[1])
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient, weight)
        return of_x, of_weight, None


def _same(weight: Tensor) -> list[int]:
    return [side // 2 for side in weight.shape[2:]]


def _unstrided(gradient: Tensor, x: Tensor, stride: Triple) -> Tensor:
    """The gradient of the convolution with stride 1 that the strided one is every n-th voxel of."""
    if stride == (1, 1, 1):
        return gradient.contiguous(memory_format=torch.channels_last_3d)
    full = torch.zeros_like(x, memory_format=torch.channels_last_3d)
    full[:, :, :: stride[0], :: stride[1], :: stride[2]] = gradient
    return full


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """One 2D weight gradient for each plane of the kernel, which is 1 or 3 planes deep.

    A plane pairs slice z of the gradient with slice z - 1, z or z + 1 of x. Pairing the slices of
    the whole batch at once copies nothing, but also pairs the end of one volume with the beginning
    of the next; what these few pairs add is taken off again.
    """
    ours, theirs = _slices(gradient), _slices(x)
    middle = weight.shape[2] // 2
    of_weight = torch.zeros_like(weight)
    of_weight[:, :, middle] = _plane_gradient(ours, theirs, weight)
    if middle == 0 or x.shape[2] == 1:  # in a single slice the outer planes see padding alone
        return of_weight
    starts = torch.arange(1, len(x), device=x.device) * x.shape[2]
    ends = starts - 1
    of_weight[:, :, 0] = _plane_gradient(ours[1:], theirs[:-1], weight)
    of_weight[:, :, 2] = _plane_gradient(ours[:-1], theirs[1:], weight)
    if len(starts):
        of_weight[:, :, 0] -= _plane_gradient(ours[starts], theirs[ends], weight)
        of_weight[:, :, 2] -= _plane_gradient(ours[ends], theirs[starts], weight)
    return of_weight


def _plane_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Weight gradient of a channel-wise 2D convolution of x; both n c y x."""
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight[:, :, 0],
        None,
        [1, 1],
        _same(weight)[1:],
        [1, 1],
        False,
        [0, 0],
        x.shape[1],
        [False, True, False],
    )[1]
    return result


def _slices(x: Tensor) -> Tensor:
    """The slices of all volumes as a batch of images, without a copy: b c z y x to (b z) c y x."""
    return x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)
