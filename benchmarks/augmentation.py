"""Random changes to a patch, beside batchgenerators' own transforms with the same rates.

    .venv/bin/python benchmarks/augmentation.py [--patches 100]

Times are means over patches of one core, both in turn. Ratios above 1: this project is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from math import radians

import numpy as np
import torch
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

from u2net_platform.data.augmentation import (
    ELASTIC_ALPHA,
    ELASTIC_SIGMA,
    Augmenter,
    Shape,
)
from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.domains.spec import Augmentation

SPEC = Augmentation(
    mirror_axes=("x",),
    rotation_axes=("z",),
    rotation_degrees=30,
    scaling=(0.75, 1.25),
    elastic=True,
)
PATCHES = {"hippocampus": (40, 56, 40), "heart": (40, 72, 96), "prostate": (24, 144, 144)}
RATES = {
    "default": AugmentationRates(),
    "twice": AugmentationRates(elastic=0.4, rotation=0.6, scaling=0.6, mirroring=1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--patches", type=int, default=100)
    patches = parser.parse_args().patches
    torch.set_num_threads(1)
    print("| patch | rates | here, ms | batchgenerators, ms | ratio |")
    print("|---|---|---:|---:|---:|")
    for name, shape in PATCHES.items():
        for title, rates in RATES.items():
            ours = Augmenter(SPEC, rates, shape)
            rng = np.random.default_rng(0)
            image = rng.normal(size=(1, *ours.source_zyx)).astype(np.float32)
            labels = (image[0] > 1).astype(np.uint8)
            theirs = _batchgenerators(rates, shape)
            arms: tuple[Callable[[int], object], ...] = (
                lambda seed, ours=ours, image=image, labels=labels: ours(image, labels, seed),  # type: ignore[misc]
                lambda _, theirs=theirs, image=image, labels=labels: theirs(  # type: ignore[misc]
                    data=image[None], seg=labels[None, None].astype(np.float32)
                ),
            )
            seconds = [0.0, 0.0]
            for seed in range(patches):
                for place, arm in enumerate(arms):
                    started = time.process_time()
                    arm(seed)
                    seconds[place] += time.process_time() - started
            here, there = (1000 * total / patches for total in seconds)
            sides = "x".join(map(str, shape))
            print(f"| {name}, {sides} | {title} | {here:.1f} | {there:.1f} | {there / here:.1f} |")


def _batchgenerators(rates: AugmentationRates, shape: Shape) -> Compose:
    largest = radians(SPEC.rotation_degrees)
    return Compose(
        [
            SpatialTransform(
                shape,
                patch_center_dist_from_border=None,
                do_elastic_deform=True,
                alpha=ELASTIC_ALPHA,
                sigma=ELASTIC_SIGMA,
                angle_x=(-largest, largest),
                angle_y=(0, 0),
                angle_z=(0, 0),
                scale=SPEC.scaling,
                border_mode_data="constant",
                border_mode_seg="constant",
                order_data=1,
                order_seg=0,
                random_crop=False,
                p_el_per_sample=rates.elastic,
                p_rot_per_sample=rates.rotation,
                p_scale_per_sample=rates.scaling,
            ),
            MirrorTransform((2,), p_per_sample=rates.mirroring),
        ]
    )


if __name__ == "__main__":
    main()
