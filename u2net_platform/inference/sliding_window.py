"""A whole volume through a network that sees one patch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import ceil, prod

import torch
import torch.nn.functional as F
from torch import Tensor

from u2net_platform.imaging.grid import Shape


@torch.inference_mode()
def sliding_window(
    planes: Callable[[int, int], Tensor],
    shape_zyx: Shape,
    patch_zyx: Shape,
    scores: Callable[[Tensor], Tensor],
    batch_size: int,
) -> Iterator[Tensor]:
    """Gaussian-weighted mean of the scores of overlapping patches, half a patch apart at most.

    It goes along z and holds no more than a patch's depth of image and scores. An image smaller
    than the patch is zero-padded on both sides and the padding cut off again.

    Args:
        planes: (start, stop) -> c z y x, of an image of this shape; each is asked for once.
        scores: b c z y x -> b k z y x, on any device; the means are gathered on the image's.

    Yields:
        k z y x float32: slabs that follow one another, from the first plane to the last.

    Source: Isensee et al. 2021 (nnU-Net), supplementary note 2, inference.
    """
    padded = [max(pair) for pair in zip(shape_zyx, patch_zyx, strict=True)]
    before = [(room - side) // 2 for room, side in zip(padded, shape_zyx, strict=True)]
    rows = _starts(padded[0], patch_zyx[0])
    inside = [slice(front, front + side) for front, side in zip(before, shape_zyx, strict=True)]
    sums = _Sums(patch_zyx)
    image = _padded(planes, shape_zyx, padded, 0, patch_zyx[0])  # c z y x, a patch deep
    for before_it, start, following in zip([0, *rows], rows, [*rows[1:], padded[0]], strict=False):
        if moved := start - before_it:
            end = start + patch_zyx[0]
            new = _padded(planes, shape_zyx, padded, end - moved, end)
            image = torch.cat([image[:, moved:], new], dim=1)
        sums.add(image, scores, batch_size)
        mean = sums.take(following - start)
        depth = inside[0] if len(rows) == 1 else slice(None)  # z is padded for a single row only
        yield mean[:, depth, inside[1], inside[2]]


def _padded(
    planes: Callable[[int, int], Tensor], shape: Shape, padded: list[int], start: int, stop: int
) -> Tensor:
    """Planes of the image as it is with its padding."""
    z_before = (padded[0] - shape[0]) // 2
    first, last = max(start - z_before, 0), min(stop - z_before, shape[0])
    room = [side - own for side, own in zip(padded, (last - first, *shape[1:]), strict=True)]
    room[0] = stop - start - (last - first)
    # F.pad counts from the last axis.
    pads = [part for gap in reversed(room) for part in (gap // 2, gap - gap // 2)]
    return F.pad(planes(first, last), pads)


class _Sums:
    """Weighted sums of scores, a patch deep, over all of y and x."""

    def __init__(self, patch_zyx: Shape) -> None:
        self._patch_zyx = patch_zyx
        self._gaussian = gaussian_map(patch_zyx)
        self._total: Tensor | None = None  # k z y x; k is known after the first batch
        self._weight = torch.zeros(0)  # z y x

    def add(self, image: Tensor, scores: Callable[[Tensor], Tensor], batch_size: int) -> None:
        """image: c z y x, as deep as a patch."""
        if self._weight.shape != image.shape[1:]:
            self._gaussian = self._gaussian.to(image.device)
            self._weight = image.new_zeros(image.shape[1:], dtype=torch.float32)
        windows = _windows(tuple(image.shape[1:]), self._patch_zyx)
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            patches = torch.stack([image[(slice(None), *window)] for window in batch])
            found = scores(patches.to(memory_format=torch.channels_last_3d))
            found = found.to(image.device, torch.float32)  # b k z y x
            if self._total is None:
                self._total = self._weight.new_zeros((found.shape[1], *self._weight.shape))
            for window, patch in zip(batch, found, strict=True):
                self._total[(slice(None), *window)].addcmul_(patch, self._gaussian)
                self._weight[window] += self._gaussian

    def take(self, count: int) -> Tensor:
        """The means of the first planes, which are taken out; zeros follow at the end."""
        assert self._total is not None  # every row has at least one window
        mean = self._total[:, :count] / self._weight[:count]
        for sums in (self._total, self._weight[None]):
            kept = sums[:, count:].clone()
            sums[:, : kept.shape[1]] = kept
            sums[:, kept.shape[1] :] = 0
        return mean


def window_count(shape_zyx: Shape, patch_zyx: Shape) -> int:
    """How many patches `sliding_window` cuts out of an image of this shape."""
    sides = zip(shape_zyx, patch_zyx, strict=True)
    return prod(len(_starts(max(side, own), own)) for side, own in sides)


def gaussian_map(patch_zyx: Shape) -> Tensor:
    """Weight of each voxel of a patch: a Gaussian of sigma = side / 8, nowhere below 1/1000.

    Source: Isensee et al. 2021 (nnU-Net), supplementary note 2; the floor is MONAI's.
    """
    sides = [torch.arange(side) - (side - 1) / 2 for side in patch_zyx]
    z, y, x = (
        torch.exp(-(offset**2) / (2 * (side / 8) ** 2))
        for offset, side in zip(sides, patch_zyx, strict=True)
    )
    return (z[:, None, None] * y[:, None] * x).clamp_(min=1e-3)


def _windows(shape: tuple[int, ...], patch_zyx: Shape) -> list[tuple[slice, slice, slice]]:
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
