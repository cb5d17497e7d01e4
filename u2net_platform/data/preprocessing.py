"""From an image to what the network sees; the same for training and prediction.

Source: Huang et al., 3D U²-Net, MICCAI 2019, section 3: crop to non-zero, resample to the median
spacing, clip to the [2, 98] percentiles, z-score each modality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import DomainSpec, Statistics
from u2net_platform.imaging.cropping import cropped_to_nonzero
from u2net_platform.imaging.resampling import resample_image, resample_planes, respaced
from u2net_platform.imaging.volume import ImageVolume


class Prepared:
    """An image (canonical, c z y x) as the network sees it: cropped, resampled, normalised.

    The grid keeps its place in the patient, so that labels predicted on it find their way back to
    any grid of the same patient. `image_grid` is that of the image, cropped: beyond it there is
    nothing but zeros.

    hold: make all of it at once. Else planes are made when they are asked for, where the plan has
        the statistics; an image's own take all of it.
    """

    def __init__(self, image: ImageVolume, spec: DomainSpec, plan: Plan, hold: bool) -> None:
        self._image = cropped_to_nonzero(image)
        self._interpolation = spec.geometry.image_interpolation
        self._statistics = plan.statistics
        self.image_grid = self._image.grid
        self.grid = respaced(self.image_grid, plan.spacing_zyx_mm)
        self._whole: NDArray[np.float32] | None = None
        if hold or not plan.statistics:
            array = resample_image(self._image, self.grid, self._interpolation).array
            clip = spec.intensity.clip_percentiles
            known = plan.statistics or [_own(channel, clip) for channel in array]
            self._whole = _normalised(array, known, self._room(array))

    def planes(self, start: int, stop: int) -> NDArray[np.float32]:
        """c z y x, between two planes of the grid."""
        if self._whole is not None:
            return self._whole[:, start:stop]
        assert self._statistics  # else it is held
        array = resample_planes(self._image, self.grid, self._interpolation, start, stop)
        return _normalised(array, self._statistics, self._room(array))

    def _room(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The array itself, unless it is the image's."""
        ours = not np.may_share_memory(array, self._image.array)
        return array if ours else np.empty_like(array)


def preprocess(image: ImageVolume, spec: DomainSpec, plan: Plan) -> ImageVolume:
    """All of an image as the network sees it."""
    prepared = Prepared(image, spec, plan, hold=True)
    return ImageVolume(prepared.planes(0, prepared.grid.shape_zyx[0]), prepared.grid)


def _own(channel: NDArray[np.float32], percentiles: tuple[float, float]) -> Statistics:
    """Of the channel itself, once it is clipped; plane by plane, as a copy may be too much."""
    low, high = map(float, np.percentile(channel, percentiles))
    sums = [np.clip(plane, low, high).sum(dtype=np.float64) for plane in channel]
    mean = math.fsum(sums) / channel.size
    squares = [((np.clip(plane, low, high) - mean) ** 2).sum(dtype=np.float64) for plane in channel]
    std = math.sqrt(math.fsum(squares) / channel.size)
    return Statistics(mean=mean, std=std, low=low, high=high)


def _normalised(
    array: NDArray[np.float32], statistics: Sequence[Statistics], out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Each channel clipped, then with zero mean and unit (population) standard deviation; zeros if
    it is constant. `out` may be the array itself."""
    for k, known in enumerate(statistics):
        if known.std > 0 and known.low < known.high:
            np.clip(array[k], known.low, known.high, out=out[k])
            out[k] -= np.float32(known.mean)
            out[k] /= np.float32(known.std)
        else:
            out[k] = 0
    return out
