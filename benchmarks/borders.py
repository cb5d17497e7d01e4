"""What it is worth to part two classes with one slice, where their shape has it.

    .venv/bin/python benchmarks/borders.py VERSION... [--cases test]

Each VERSION, as hippocampus:3, is in the catalog of U2NET_HOME, and of a domain whose spec declares
a border. Prints the mean Dice of the two classes as the network has them, parted as in service, and
parted where the labels are, which nobody knows; how many slices the borders are off; and the
Dice of both as one class, which no border can hurt.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.data.borders import AXES, Border
from u2net_platform.data.dataset import Case
from u2net_platform.data.integrity import load_case
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.imaging.volume import canonical
from u2net_platform.settings import Settings
from u2net_platform.workflows.evaluate import cases_of
from u2net_platform.workflows.versions import LoadedVersion, load_predictor

WAYS = ("network", "one slice", "the labels' slice", "both as one", "slices off", "of the network")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+")
    parser.add_argument("--cases", choices=("test", "validation", "training"), default="test")
    arguments = parser.parse_args()
    settings = Settings()
    catalog = Catalog.open(settings.database_url)
    print(f"| {arguments.cases} cases | number | {' | '.join(WAYS)} |")
    print("|---" * (2 + len(WAYS)) + "|")
    for reference in arguments.versions:
        loaded = load_predictor(settings, reference, torch.device("cpu"))
        border = loaded.predictor.plan.border
        if border is None:
            parser.error(f"{reference} has no border")
        # What the network has, without what is learned of the border.
        loaded.predictor.plan = loaded.predictor.plan.model_copy(update={"border": None})
        cases = cases_of(catalog, loaded.record, arguments.cases)
        rows = [_figures(loaded, border, case) for case in cases]
        means = " | ".join(f"{mean:.2f}" for mean in np.mean(rows, axis=0))
        print(f"| {reference} | {len(rows)} | {means} |", flush=True)


def _figures(loaded: LoadedVersion, border: Border, case: Case) -> list[float]:
    """Of a case, in the order of `WAYS`."""
    image, reference = load_case(loaded.plugin, case)
    assert reference is not None  # the cases are labelled
    labels = canonical(reference).array
    found = canonical(loaded.predictor.predict_clean(image, reference.grid)).array
    spec, grid = loaded.plugin.spec, canonical(reference).grid
    drawn = found.copy()
    border.draw(drawn, spec.class_names, grid.spacing_zyx_mm)
    values = [1 + spec.class_names.index(name) for name in border.classes]
    axis = AXES.index(border.axis)
    known = np.moveaxis(found.copy(), axis, 0)
    where = _slice(labels, values, axis)
    for index, plane in enumerate(known):
        plane[np.isin(plane, values)] = values[index >= where]
    ways = (found, drawn, np.moveaxis(known, 0, axis))
    dice = [_dice(labels, one, spec.classes, values) for one in ways]
    both = [np.isin(one, values).astype(np.uint8) for one in (labels, found)]
    off = [abs(_slice(one, values, axis) - where) for one in (drawn, found)]
    return [*dice, 100 * dice_by_class(*both, 2)[1], *off]


def _slice(labels: NDArray[np.uint8], values: list[int], axis: int) -> int:
    """The first of the upper class, where one slice parts both best."""
    slices = np.moveaxis(labels, axis, 0)
    below, above = (np.cumsum([0, *(slices == value).sum((1, 2))]) for value in values)
    return int((below + above[-1] - above).argmax())


def _dice(
    labels: NDArray[np.uint8], found: NDArray[np.uint8], classes: int, values: list[int]
) -> float:
    by_class = dice_by_class(labels, found, classes)
    return 100 * float(np.mean([by_class[value] for value in values]))


if __name__ == "__main__":
    main()
