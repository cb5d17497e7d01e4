"""Look at every case of a data set and tell all that is wrong or odd; one case hides no other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from u2net_platform.data.dataset import Case, Dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.data.workers import attempt_each_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import (
    DataError,
    DuplicateCase,
    MissingClass,
    SkewedAxes,
    SpacingOutlier,
    SuspiciousIntensities,
)
from u2net_platform.imaging.volume import Grid, read_header

# A voxel this many times longer or shorter than the data set's median is most often another unit.
SPACING_RATIO = 3.0
SHORTEST_MM, LONGEST_MM = 5.0, 2500.0  # of a scan, along any axis
AIR_HU = -500  # what a CT with air or lung in it goes below, and what MR does not
EIGHT_BITS = 255
MANY = 0.01  # part of the voxels


@dataclass(frozen=True)
class Finding:
    """An error keeps a case from being used; a warning is for somebody to look at.

    case_id: None where it is about the whole data set.
    """

    case_id: str | None
    severity: Literal["error", "warning"]
    fault: DataError


def check_dataset(
    plugin: DomainPlugin, dataset: Dataset, on_case: Callable[[str], None]
) -> list[Finding]:
    """Read every case, test cases too; findings in the order of the cases, then of the whole."""
    cases = [*dataset.training, *dataset.test]
    findings, sound = [], []
    for case, found in attempt_each_case(cases, partial(_examine, plugin), None, on_case):
        if isinstance(found, DataError):
            findings.append(Finding(case.id, "error", found))
        else:
            findings += [Finding(case.id, "warning", oddity) for oddity in found.oddities]
            sound.append(found)
    findings += _duplicates(sound)
    findings += _outliers(sound)
    findings += _missing_classes(plugin, sound)
    return findings


@dataclass(frozen=True)
class _Examined:
    """A sound case. classes: those of its label, None without one. content: of its voxels."""

    case_id: str
    grid: Grid
    classes: frozenset[int] | None
    content: str
    oddities: tuple[DataError, ...]


def _examine(plugin: DomainPlugin, case: Case) -> _Examined:
    image, labels = load_case(plugin, case)
    classes = None if labels is None else frozenset(np.unique(labels.array).tolist())
    content = hashlib.sha256(image.array.tobytes()).hexdigest()
    oddities = [*_skewed(case), *_intensities(plugin, image.array, case)]
    return _Examined(case.id, image.grid, classes, content, tuple(oddities))


def _skewed(case: Case) -> Iterator[DataError]:
    for path in case.images if case.label is None else (*case.images, case.label):
        header = read_header(path)
        if header is not None and header.skewed:
            yield SkewedAxes(
                f"{path} has axes that are not quite at right angles; the nearest that are were"
                " taken",
                "Nothing has to be done. To be rid of it, export the file again.",
            )


def _intensities(
    plugin: DomainPlugin, image: NDArray[np.float32], case: Case
) -> Iterator[DataError]:
    modality = plugin.spec.modality
    for channel, path in zip(image, case.images * len(image), strict=False):
        low, high = float(channel.min()), float(channel.max())
        if modality == "CT" and low >= 0:
            reason = "a window of 8 bits" if high <= EIGHT_BITS else "a rescale intercept left out"
            yield SuspiciousIntensities(
                f"{path} is no CT in Hounsfield units: its values go from {low:g} to {high:g},"
                f" which looks like {reason}",
                "Export it again with the modality's own values.",
            )
        elif modality == "MR" and (channel < AIR_HU).mean() > MANY:
            yield SuspiciousIntensities(
                f"{path} is declared as MR and has values down to {low:g}: it looks like a CT",
                "Compare the file with its source, and the modality in domain.toml.",
            )


def _duplicates(cases: Sequence[_Examined]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for case in cases:
        other = first.setdefault(case.content, case.case_id)
        if other != case.case_id:
            fault = DuplicateCase(
                f"{case.case_id} has the same voxels as {other}",
                "Remove one: a case that is trained on and tested on makes the test worthless.",
            )
            yield Finding(case.case_id, "error", fault)


def _outliers(cases: Sequence[_Examined]) -> Iterator[Finding]:
    if not cases:
        return
    spacings = np.array([case.grid.spacing_zyx_mm for case in cases])
    median = np.median(spacings, axis=0)
    for case, spacing in zip(cases, spacings, strict=True):
        extent = spacing * case.grid.shape_zyx
        ratio = np.maximum(spacing / median, median / spacing).max()
        if ratio > SPACING_RATIO or extent.min() < SHORTEST_MM or extent.max() > LONGEST_MM:
            shown = " x ".join(f"{side:g}" for side in spacing)
            size = " x ".join(f"{side:.4g}" for side in extent)
            fault = SpacingOutlier(
                f"{case.case_id} has voxels of {shown} mm and is {size} mm large (z y x); the"
                f" median voxel is {' x '.join(f'{side:g}' for side in median)} mm",
                "Look at the header: the unit may be another than mm, or an axis exchanged.",
            )
            yield Finding(case.case_id, "warning", fault)


def _missing_classes(plugin: DomainPlugin, cases: Sequence[_Examined]) -> Iterator[Finding]:
    labelled = [case for case in cases if case.classes is not None]
    cases_without = defaultdict(list)
    for value, name in enumerate(plugin.spec.class_names, start=1):
        for case in labelled:
            hidden = value in plugin.spec.hidden_classes(case.case_id)
            if value not in (case.classes or ()) and not hidden:
                cases_without[name].append(case.case_id)
    for name, without in cases_without.items():
        everywhere = len(without) == len(labelled)
        which = "no case" if everywhere else f"not in {', '.join(without)}"
        fault = MissingClass(
            f"{name} is in {which}" if everywhere else f"{name} is {which}",
            "If nobody has drawn it there, say so under `unlabelled` in domain.toml.",
        )
        yield Finding(None, "error" if everywhere else "warning", fault)
