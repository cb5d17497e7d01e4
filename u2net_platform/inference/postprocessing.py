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


def postprocess(
    plugin: DomainPlugin,
    labels: NDArray[np.uint8],
    spacing_zyx_mm: ZYX,
    chosen: Collection[str] = (),
) -> NDArray[np.uint8]:
    """The plugin's own hook where it has one, else what its spec declares; z y x to z y x.

    chosen: classes of which the largest part is kept, beside those that the spec declares.

    Raises:
        BrokenPlugin: the hook fails, or returns something that is no such volume.
    """
    if plugin.postprocess:
        return _run_hook(plugin, plugin.postprocess, labels, spacing_zyx_mm)
    for value, name in enumerate(plugin.spec.class_names, start=1):
        if name in chosen or name in plugin.spec.postprocessing.keep_largest:
            labels = keep_largest(labels, value)
    return labels


def keep_largest(labels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """Of one class keep the largest connected component; voxels that share a corner connect."""
    components, count = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
    if count < 2:
        return labels
    sizes = np.bincount(components.ravel())
    largest = 1 + np.argmax(sizes[1:])
    return np.where((components > 0) & (components != largest), np.uint8(0), labels)


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
