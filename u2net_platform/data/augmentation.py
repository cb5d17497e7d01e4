"""Random changes to patches. The one file that knows batchgenerators."""

from __future__ import annotations

from math import ceil, radians
from typing import Any, cast

import numpy as np
import torch
from batchgenerators.augmentations.utils import (
    create_zero_centered_coordinate_mesh,
    interpolate_img,
    rotate_coords_3d,
)
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.domains.spec import Augmentation
from u2net_platform.imaging.grid import Shape

# Displacement scale and smoothness of the elastic deformation, as in the paper's code.
ELASTIC_ALPHA = (0.0, 750.0)
ELASTIC_SIGMA = (10.0, 13.0)
ELASTIC_SPACING = 4  # voxels from one drawn displacement to the next
LINEAR, NEAREST = 1, 0  # cubic costs several times as much, on the cores that train


class Augmenter:
    """Changes patches at random, within what a domain's spec says is plausible for it.

    It is given a patch of `source_zyx`, large enough that shrinking shows no padding, and
    returns the middle of it, of `patch_zyx`.
    """

    def __init__(self, spec: Augmentation, rates: AugmentationRates, patch_zyx: Shape) -> None:
        # As much on either side: else the middle would lie half a voxel off, and with it what is
        # interpolated, or, of a patch that is one slice deep, in the slice beside.
        more = max(1.0, spec.scaling[1]) - 1
        z, y, x = (side + 2 * ceil(side * more / 2) for side in patch_zyx)
        self.patch_zyx = patch_zyx
        self.source_zyx: Shape = (z, y, x)
        self._spec = spec
        self._rates = rates

    def __call__(
        self, image: NDArray[np.float32], labels: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Image (c z y x) and labels (z y x) of the source's shape to those of the patch's."""
        rng = np.random.default_rng(seed)
        places = self._places(rng)
        if places is None:
            image, labels = self._middle(image), self._middle(labels)
        else:
            channels = [interpolate_img(one, places, LINEAR, "constant") for one in image]
            image = np.stack(channels)
            labels = interpolate_img(labels, places, NEAREST, "constant", is_seg=True)
        if rng.random() < self._rates.mirroring:
            axes = tuple(
                place
                for place, axis in zip((-3, -2, -1), "zyx", strict=True)
                if axis in self._spec.mirror_axes and rng.random() < 0.5
            )
            image, labels = np.flip(image, axes), np.flip(labels, axes)
        return image, labels

    def _places(self, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Where in the source each voxel of the patch comes from, 3 z y x; None for the middle."""
        spec, rates = self._spec, self._rates
        elastic = spec.elastic and rng.random() < rates.elastic
        turned = bool(spec.rotation_axes) and rng.random() < rates.rotation
        scaled = rng.random() < rates.scaling
        if not (elastic or turned or scaled):
            return None
        places = create_zero_centered_coordinate_mesh(self.patch_zyx)
        if elastic:
            places += elastic_displacement(rng, self.patch_zyx)
        if turned:
            largest = radians(spec.rotation_degrees)
            angles = (
                rng.uniform(-largest, largest) * (axis in spec.rotation_axes) for axis in "zyx"
            )
            # batchgenerators numbers the axes of an array x, y, z: ours are z, y, x.
            places = rotate_coords_3d(places, *angles)
        if scaled:
            smaller, larger = spec.scaling
            below = smaller < 1 and (larger <= 1 or rng.random() < 0.5)
            bounds = (smaller, min(1, larger)) if below else (max(smaller, 1), larger)
            places *= rng.uniform(*bounds)
        centre = (np.array(self.source_zyx) - 1) / 2
        return cast("NDArray[np.float64]", places + centre[:, None, None, None])

    def _middle(self, array: NDArray[Any]) -> NDArray[Any]:
        inside: Any = (
            slice((whole - side) // 2, (whole - side) // 2 + side)
            for whole, side in zip(self.source_zyx, self.patch_zyx, strict=True)
        )
        return array[(..., *inside)]


def elastic_displacement(rng: np.random.Generator, shape_zyx: Shape) -> NDArray[np.float64]:
    """A smooth random displacement in voxels, 3 z y x: white noise behind a Gaussian.

    Noise is drawn on a coarser grid, where smoothing costs a hundredth and which so smooth a field
    does not show. A mean over fewer draws varies more, which the scale makes up for: each draw
    counts as the mean of the voxels that it stands for, of which it has fewer at the border.
    """
    alpha, sigma = rng.uniform(*ELASTIC_ALPHA), rng.uniform(*ELASTIC_SIGMA)
    pieces = [ceil(side / ELASTIC_SPACING) for side in shape_zyx]
    spacing = [max(side - 1, 1) / count for side, count in zip(shape_zyx, pieces, strict=True)]
    noise = alpha * rng.uniform(-1, 1, (3, *(count + 1 for count in pieces)))
    for axis, (side, count, step) in enumerate(zip(shape_zyx, pieces, spacing, strict=True)):
        voxels = np.full(count + 1, step)
        voxels[[0, -1]] = (side - (count - 1) * step) / 2
        noise *= (voxels**0.5 / step).reshape(-1, *[1] * (2 - axis))
    smooth = gaussian_filter(noise, [0, *(sigma / step for step in spacing)], mode="constant")
    field = torch.nn.functional.interpolate(
        torch.from_numpy(smooth)[None], shape_zyx, mode="trilinear", align_corners=True
    )
    return cast("NDArray[np.float64]", field[0].numpy())
