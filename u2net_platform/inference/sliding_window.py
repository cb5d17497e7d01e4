"""A whole volume through a network that sees one patch at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

ZYX = tuple[int, int, int]


@torch.inference_mode()
def sliding_window(
    image: Tensor, patch_zyx: ZYX, scores: Callable[[Tensor], Tensor], batch_size: int
) -> Tensor:
    """Gaussian-weighted mean of the scores of overlapping patches, half a patch apart at most.

    An image smaller than the patch is zero-padded on both sides and the padding cut off again.

    Args:
        image: c z y x.
        scores: b c z y x -> b k z y x, on any device; the means are gathered on the image's.

    Returns:
        k z y x float32.

    Source: Isensee et al. 2021 (nnU-Net), supplementary note 2, inference.
    """
    shape = image.shape[1:]
    before = [max(side - size, 0) // 2 for side, size in zip(patch_zyx, shape, strict=True)]
    after = [
        max(side - size, 0) - front
        for side, size, front in zip(patch_zyx, shape, before, strict=True)
    ]
    # F.pad counts from the last axis.
    pads = [pad for axis in (2, 1, 0) for pad in (before[axis], after[axis])]
    mean = _mean_scores(F.pad(image, pads), patch_zyx, scores, batch_size)
    z, y, x = (slice(front, front + size) for front, size in zip(before, shape, strict=True))
    return mean[:, z, y, x]


def _mean_scores(
    image: Tensor, patch_zyx: ZYX, scores: Callable[[Tensor], Tensor], batch_size: int
) -> Tensor:
    gaussian = gaussian_map(patch_zyx).to(image.device)
    windows = _windows(tuple(image.shape[1:]), patch_zyx)
    weight = image.new_zeros(image.shape[1:], dtype=torch.float32)  # z y x
    total: Tensor | None = None  # k z y x; k is known after the first batch
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        patches = torch.stack([image[(slice(None), *window)] for window in batch])  # b c z y x
        found = scores(patches.to(memory_format=torch.channels_last_3d))
        found = found.to(image.device, torch.float32)
        if total is None:
            total = weight.new_zeros((found.shape[1], *weight.shape))
        for window, patch in zip(batch, found, strict=True):
            total[(slice(None), *window)].addcmul_(patch, gaussian)
            weight[window] += gaussian
    assert total is not None  # every axis has at least one window
    return total.div_(weight)


def gaussian_map(patch_zyx: ZYX) -> Tensor:
    """Weight of each voxel of a patch: a Gaussian of sigma = side / 8, nowhere below 1/1000.

    Source: Isensee et al. 2021 (nnU-Net), supplementary note 2; the floor is MONAI's.
    """
    sides = [torch.arange(side) - (side - 1) / 2 for side in patch_zyx]
    z, y, x = (
        torch.exp(-(offset**2) / (2 * (side / 8) ** 2))
        for offset, side in zip(sides, patch_zyx, strict=True)
    )
    return (z[:, None, None] * y[:, None] * x).clamp_(min=1e-3)


def _windows(shape: tuple[int, ...], patch_zyx: ZYX) -> list[tuple[slice, slice, slice]]:
    """Boxes of a patch's size that cover the shape, evenly spread along each axis."""
    starts = [_starts(size, side) for size, side in zip(shape, patch_zyx, strict=True)]
    z_side, y_side, x_side = patch_zyx
    return [
        (slice(z, z + z_side), slice(y, y + y_side), slice(x, x + x_side))
        for z, y, x in product(*starts)
    ]


def _starts(size: int, side: int) -> list[int]:
    room = size - side
    steps = ceil(room / max(side // 2, 1))
    return [round(step * room / steps) for step in range(steps + 1)] if steps else [0]
