"""From an image to what the network sees; the same for training and prediction.

Source: Huang et al., 3D U²-Net, MICCAI 2019, section 3: crop to non-zero, resample to the median
spacing, clip to the [2, 98] percentiles, z-score each modality.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import DomainSpec, Statistics
from u2net_platform.imaging.cropping import cropped_to_nonzero
from u2net_platform.imaging.resampling import resample_image, respaced
from u2net_platform.imaging.volume import ImageVolume


def preprocess(image: ImageVolume, spec: DomainSpec, plan: Plan) -> ImageVolume:
    """Crop, resample and normalise a canonical image (c z y x).

    The result's grid keeps its place in the patient, so that labels predicted on it find their
    way back to any grid of the same patient.
    """
    cropped = cropped_to_nonzero(image)
    grid = respaced(cropped.grid, plan.spacing_zyx_mm)
    resampled = resample_image(cropped, grid, spec.geometry.image_interpolation)
    known: Iterable[Statistics | None] = plan.statistics or [None] * len(resampled.array)
    channels = [
        _normalised(channel, statistics or _own(channel, spec.intensity.clip_percentiles))
        for channel, statistics in zip(resampled.array, known, strict=True)
    ]
    return ImageVolume(np.stack(channels), grid)


def _own(channel: NDArray[np.float32], percentiles: tuple[float, float]) -> Statistics:
    """Of the channel itself, once it is clipped."""
    low, high = map(float, np.percentile(channel, percentiles))
    clipped = np.clip(channel, low, high)
    mean, std = clipped.mean(dtype=np.float64), clipped.std(dtype=np.float64)
    return Statistics(mean=float(mean), std=float(std), low=low, high=high)


def _normalised(channel: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Clipped, then zero mean and unit (population) standard deviation; zeros if constant."""
    if statistics.std == 0 or statistics.low == statistics.high:
        return np.zeros_like(channel)
    clipped = np.clip(channel, statistics.low, statistics.high)
    return (clipped - np.float32(statistics.mean)) / np.float32(statistics.std)
