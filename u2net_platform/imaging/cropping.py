"""Cutting away what holds nothing."""

from __future__ import annotations

import numpy as np

from u2net_platform.imaging.volume import ImageVolume


def cropped_to_nonzero(image: ImageVolume) -> ImageVolume:
    """The smallest box that holds every voxel where any channel is not 0; all of it if none is.

    The grid's origin moves with the box, so that the box keeps its place in the patient. The array
    is a view of the image's.
    """
    held = np.any(image.array != 0, axis=0)
    if not held.any():
        return image
    box = []
    for axis in range(3):
        inside = np.flatnonzero(held.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    array = image.array[:, *box]
    z, y, x = array.shape[1:]
    return ImageVolume(array, image.grid.box([side.start for side in box], (z, y, x)))
