"""Random changes to patches. The one file that knows batchgenerators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, radians
from typing import Annotated

import numpy as np
from batchgenerators.transforms.abstract_transforms import AbstractTransform, Compose
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from u2net_platform.domains.spec import Augmentation

Shape = tuple[int, int, int]
Probability = Annotated[float, Field(ge=0, le=1)]

# Displacement scale and smoothness of the elastic deformation, as in the paper's code.
ELASTIC_ALPHA = (0.0, 750.0)
ELASTIC_SIGMA = (10.0, 13.0)


class AugmentationRates(BaseModel):
    """How often a patch is changed in each way. Source: the paper's published code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elastic: Probability = 0.3
    rotation: Probability = 0.3
    scaling: Probability = 0.5
    mirroring: Probability = 0.15


class Augmenter:
    """Changes patches at random, within what a domain's spec says is plausible for it.

    It is given a patch of `source_zyx`, large enough that shrinking shows no padding, and
    returns the middle of it, of `patch_zyx`.
    """

    def __init__(self, spec: Augmentation, rates: AugmentationRates, patch_zyx: Shape) -> None:
        z, y, x = (ceil(side * max(1.0, spec.scaling[1])) for side in patch_zyx)
        self.patch_zyx = patch_zyx
        self.source_zyx: Shape = (z, y, x)
        transforms: list[AbstractTransform] = [_spatial(spec, rates, patch_zyx)]
        if spec.mirror_axes and rates.mirroring:
            axes = tuple("zyx".index(axis) for axis in spec.mirror_axes)
            transforms.append(MirrorTransform(axes, p_per_sample=rates.mirroring))
        self._transform = Compose(transforms)

    def __call__(
        self, image: NDArray[np.float32], labels: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Image (c z y x) and labels (z y x) of the source's shape to those of the patch's."""
        with _seeded(seed):
            changed = self._transform(
                data=np.ascontiguousarray(image[None]),
                seg=np.ascontiguousarray(labels[None, None], dtype=np.float32),
            )
        return changed["data"][0].astype(np.float32), changed["seg"][0, 0].astype(np.uint8)


def _spatial(spec: Augmentation, rates: AugmentationRates, patch_zyx: Shape) -> SpatialTransform:
    def angle(axis: str) -> tuple[float, float]:
        largest = radians(spec.rotation_degrees) if axis in spec.rotation_axes else 0.0
        return (-largest, largest)

    # batchgenerators numbers the axes of an array x, y, z: ours are z, y, x.
    return SpatialTransform(
        patch_zyx,
        patch_center_dist_from_border=None,
        do_elastic_deform=spec.elastic,
        alpha=ELASTIC_ALPHA,
        sigma=ELASTIC_SIGMA,
        do_rotation=bool(spec.rotation_axes),
        angle_x=angle("z"),
        angle_y=angle("y"),
        angle_z=angle("x"),
        do_scale=True,
        scale=spec.scaling,
        border_mode_data="constant",
        border_mode_seg="constant",
        # Linear: cubic costs several times as much, on the cores that train.
        order_data=1,
        order_seg=0,
        random_crop=False,
        p_el_per_sample=rates.elastic,
        p_rot_per_sample=rates.rotation,
        p_scale_per_sample=rates.scaling,
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """batchgenerators draws from the global generators: seed them here, and put them back."""
    before, before_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)
