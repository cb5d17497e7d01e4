"""What happens to a prediction after the network, on the grid of the input."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import BrokenPlugin

if TYPE_CHECKING:
    from u2net_platform.domains.plugin import Postprocess

ZYX = tuple[float, float, float]
# A part is as large as it has voxels of a probability above this: unlike the voxels around them,
# such ones are seldom found far from the organ. 0.8 to 0.99 choose the same parts: RESULTS.md.
SURE = 0.9
BYTES_PER_CLEANED_VOXEL = 6  # of finding parts: two masks, and the number of each voxel's part


def postprocess(
    plugin: DomainPlugin,
    labels: NDArray[np.uint8],
    sure: NDArray[np.bool_] | None,
    spacing_zyx_mm: ZYX,
    chosen: Collection[str] = (),
) -> NDArray[np.uint8]:
    """The plugin's own hook where it has one, else what its spec declares; z y x to z y x.

    labels: may be changed in place.
    sure: where the probability of the label is above `SURE`; of use where parts are compared.
    chosen: classes of which the largest part is kept, beside those that the spec declares.

    Raises:
        BrokenPlugin: the hook fails, or returns something that is no such volume.
    """
    if plugin.postprocess:
        return _run_hook(plugin, plugin.postprocess, labels, spacing_zyx_mm)
    for value in cleaned_classes(plugin, chosen):
        assert sure is not None
        keep_largest(labels, sure, value)
    return labels


def cleaned_classes(plugin: DomainPlugin, chosen: Collection[str] = ()) -> list[int]:
    """Classes of which `postprocess` keeps the largest part alone."""
    if plugin.postprocess:
        return []
    named = {*chosen, *plugin.spec.postprocessing.keep_largest}
    names = enumerate(plugin.spec.class_names, start=1)
    return [value for value, name in names if name in named]


def keep_largest(labels: NDArray[np.uint8], sure: NDArray[np.bool_], value: int) -> None:
    """Of one class keep the connected component with most sure voxels, of those with as many the
    largest; in place. Voxels that share a corner connect.

    Takes up to `BYTES_PER_CLEANED_VOXEL` beside the labels, `sure` included.
    """
    box = ndimage.find_objects(labels, max_label=value)[value - 1]
    if box is None:
        return
    inside = labels[box]
    components, count = ndimage.label(inside == value, structure=np.ones((3, 3, 3)))
    if count < 2:
        return
    # Plane by plane, as counting turns what it counts into 64-bit numbers.
    sizes, cores = np.zeros((2, count + 1), np.int64)
    for plane, core in zip(components, sure[box], strict=True):
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
        cores += np.bincount(plane[core], minlength=count + 1)
    largest = max(range(1, count + 1), key=lambda part: (cores[part], sizes[part]))
    for labels_plane, plane in zip(inside, components, strict=True):
        labels_plane[(plane > 0) & (plane != largest)] = 0


def _run_hook(
    plugin: DomainPlugin,
    hook: Postprocess,
    labels: NDArray[np.uint8],
    spacing_zyx_mm: ZYX,
) -> NDArray[np.uint8]:
    try:
        result = np.asarray(hook(labels, spacing_zyx_mm))
    except Exception as error:  # a plugin's own code may raise anything
        raise BrokenPlugin(
            f"postprocess of domain {plugin.name} fails: {type(error).__name__}: {error}",
            f"Correct {plugin.directory}/plugin.py.",
        ) from error
    if result.shape != labels.shape or not np.isin(result, range(plugin.spec.classes)).all():
        raise BrokenPlugin(
            f"postprocess of domain {plugin.name} returns no labels of the shape it was given",
            f"Correct {plugin.directory}/plugin.py.",
        )
    return result.astype(np.uint8)
