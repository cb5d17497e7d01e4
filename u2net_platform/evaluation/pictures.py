"""A sheet of pictures: what was predicted, what is true if that is known, and how training went."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from u2net_platform.files import atomic_path
from u2net_platform.imaging.grid import Spacing

# Seen apart by the colour-blind. Source: Okabe & Ito 2008, Color Universal Design.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
MORE_COLOURS = colormaps["tab20b"]  # of the eighth class on
KEY_ROWS = 12  # what fits beside a row
TITLE_LENGTH = 80  # of a line, beside the key
PLANES = ("axial", "coronal", "sagittal")  # across z, y, x
INCHES = 2.2
DPI = 110


@dataclass(frozen=True)
class SheetRow:
    """A case in one row. The volumes are z y x in canonical orientation; `classes` are the names of
    1, 2, ..."""

    title: str
    classes: Sequence[str]
    image: NDArray[np.floating[Any]]
    reference: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8]
    spacing_zyx_mm: Spacing


def write_sheet(
    path: Path, rows: Sequence[SheetRow], curves: Mapping[str, Sequence[tuple[int, float]]]
) -> None:
    """Write a PNG: one row a case, and below them one panel a curve of (cycle, value).

    Each row shows the axial, coronal and sagittal slice with most of the reference on it, or of
    what was predicted where there is none;
    predicted contours are solid, true ones dashed, in one colour per class. The part of a curve's
    name before its first `/` chooses the panel: `loss/heart` and `loss/liver` share one.

    Raises:
        NotWritable, DiskFull: there is no sheet then, or still the one before.
    """
    panels: dict[str, dict[str, Sequence[tuple[int, float]]]] = {}
    for name, points in curves.items():
        panel, _, line = name.partition("/")
        panels.setdefault(panel, {})[line or panel] = points
    heights = [1.0] * len(rows) + ([1.2] if panels else [])
    figure = Figure(figsize=(3 * INCHES, INCHES * sum(heights)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    bands = np.atleast_1d(np.asarray(figure.subfigures(len(heights), 1, height_ratios=heights)))
    for band, row in zip(bands, rows, strict=False):  # the last band is the curves'
        band.suptitle(textwrap.fill(row.title, TITLE_LENGTH), fontsize=8)
        drawn: set[int] = set()
        for axis, axes in enumerate(band.subplots(1, 3)):
            drawn |= _draw_slice(axes, row, axis)
        key = [
            Line2D([], [], color=_colour(value), label=name)
            for value, name in enumerate(row.classes, start=1)
            if value in drawn
        ]
        columns = -(-len(key) // KEY_ROWS)
        band.legend(
            handles=key, loc="outside right upper", ncols=columns, fontsize=6, frameon=False
        )
    if panels:
        found = np.atleast_1d(np.asarray(bands[-1].subplots(1, len(panels))))
        for axes, (panel, lines) in zip(found, panels.items(), strict=True):
            _draw_curves(axes, panel, lines)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def best_slice(labels: NDArray[np.uint8], axis: int) -> int:
    """Index along `axis` of the slice with the most foreground; the middle one if there is none."""
    others = tuple(other for other in range(3) if other != axis)
    counts = np.count_nonzero(labels, axis=others)
    return int(counts.argmax()) if counts.any() else labels.shape[axis] // 2


def _draw_slice(axes: Axes, row: SheetRow, axis: int) -> set[int]:
    """Returns the classes that have a contour there."""
    index = best_slice(row.prediction if row.reference is None else row.reference, axis)
    image = np.moveaxis(row.image, axis, 0)[index]
    down_mm, across_mm = (mm for other, mm in enumerate(row.spacing_zyx_mm) if other != axis)
    low, high = np.percentile(image, (1, 99))
    # Rows of an axial slice run to the back of the patient; z runs up.
    axes.imshow(
        image,
        cmap="gray",
        vmin=low,
        vmax=high,
        aspect=down_mm / across_mm,
        origin="upper" if axis == 0 else "lower",
    )
    drawn = _draw_contours(axes, np.moveaxis(row.prediction, axis, 0)[index], "solid")
    if row.reference is not None:
        drawn |= _draw_contours(axes, np.moveaxis(row.reference, axis, 0)[index], "dashed")
    axes.set_axis_off()
    axes.set_title(f"{PLANES[axis]} {index}", fontsize=6)
    return drawn


def _draw_contours(axes: Axes, classes: NDArray[np.uint8], style: str) -> set[int]:
    values = {int(value) for value in np.unique(classes)} - {0}
    for value in values:
        # A border of background closes the contour of what touches the edge.
        padded = np.pad(classes == value, 1).astype(float)
        down, across = (np.arange(-1, size + 1) for size in classes.shape)
        line: dict[str, Any] = {"colors": _colour(value), "linestyles": style, "linewidths": 1}
        axes.contour(across, down, padded, levels=[0.5], **line)
    return values


def _colour(value: int) -> str:
    if value <= len(COLOURS):
        return COLOURS[value - 1]
    return to_hex(MORE_COLOURS((value - len(COLOURS) - 1) % MORE_COLOURS.N))


def _draw_curves(axes: Axes, panel: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    for name, points in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axes.set_title(panel, fontsize=8)
    axes.set_xlabel("cycle", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=6)
