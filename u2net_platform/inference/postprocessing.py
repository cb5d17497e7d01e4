"""What happens to a prediction after the network, on the input's grid, canonical."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from u2net_platform.data.places import largest_part
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import BrokenPlugin
from u2net_platform.imaging.grid import Spacing

if TYPE_CHECKING:
    from u2net_platform.data.borders import Border
    from u2net_platform.data.places import Expected
    from u2net_platform.domains.plugin import Postprocess

BYTES_PER_CLEANED_VOXEL = 5  # of finding parts: a mask, and the number of each voxel's part
NOWHERE: Mapping[str, Expected] = {}


def postprocess(
    plugin: DomainPlugin,
    labels: NDArray[np.uint8],
    spacing_zyx_mm: Spacing,
    chosen: Collection[str] = (),
    expected: Mapping[str, Expected] = NOWHERE,
    border: Border | None = None,
) -> NDArray[np.uint8]:
    """The plugin's own hook where it has one, else what its spec declares; z y x to z y x.

    labels: may be changed in place.
    chosen: classes of which the largest part is kept, beside those that the spec declares.
    expected: where classes are expected, by name.
    border: what is learned of the border that the spec declares.

    Raises:
        BrokenPlugin: the hook fails, or returns something that is no such volume.
    """
    if plugin.postprocess:
        return _run_hook(plugin, plugin.postprocess, labels, spacing_zyx_mm)
    if border:  # first: what one class has inside the other is no part to be cleaned away
        border.draw(labels, plugin.spec.class_names, spacing_zyx_mm)
    for value in cleaned_classes(plugin, chosen):
        keep_largest(labels, value, expected.get(plugin.spec.class_names[value - 1]))
    return labels


def cleaned_classes(plugin: DomainPlugin, chosen: Collection[str] = ()) -> list[int]:
    """Classes of which `postprocess` keeps the largest part alone."""
    if plugin.postprocess:
        return []
    named = {*chosen, *plugin.spec.postprocessing.keep_largest}
    names = enumerate(plugin.spec.class_names, start=1)
    return [value for value, name in names if name in named]


def keep_largest(labels: NDArray[np.uint8], value: int, expected: Expected | None = None) -> None:
    """Of one class keep the largest part, in place, as `largest_part` has it.

    Takes up to `BYTES_PER_CLEANED_VOXEL` beside the labels.
    """
    box = ndimage.find_objects(labels, max_label=value)[value - 1]
    if box is None:
        return
    inside = labels[box]
    parts, largest = largest_part(inside == value, expected, [side.start for side in box])
    for labels_plane, plane in zip(inside, parts, strict=True):
        labels_plane[(plane > 0) & (plane != largest)] = 0


def _run_hook(
    plugin: DomainPlugin,
    hook: Postprocess,
    labels: NDArray[np.uint8],
    spacing_zyx_mm: Spacing,
) -> NDArray[np.uint8]:
    try:
        with redirect_stdout(sys.stderr):  # stdout is for a command's data
            result = np.asarray(hook(labels, spacing_zyx_mm))
    except Exception as error:  # a plugin's own code may raise anything
        raise BrokenPlugin(
            f"postprocess of domain {plugin.name} fails: {type(error).__name__}: {error}",
            f"Correct {plugin.directory}/plugin.py.",
        ) from error
    # Plane by plane, as numpy takes a dozen bytes a voxel for it.
    classes = range(plugin.spec.classes)
    if result.shape != labels.shape or not all(np.isin(plane, classes).all() for plane in result):
        raise BrokenPlugin(
            f"postprocess of domain {plugin.name} returns no labels of the shape it was given",
            f"Correct {plugin.directory}/plugin.py.",
        )
    return result.astype(np.uint8, copy=False)
