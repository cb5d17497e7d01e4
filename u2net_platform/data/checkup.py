"""Look at every case of a data set and tell all that is wrong or odd; one case hides no other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from u2net_platform.data.dataset import Case, Dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.data.workers import Fault, attempt_each_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import mirrored_pair
from u2net_platform.errors import (
    ContradictoryPlace,
    DataError,
    DuplicateCase,
    MirroredSides,
    MissingClass,
    NamedCase,
    SkewedAxes,
    SpacingOutlier,
    SuspiciousIntensities,
    UnmatchedPattern,
    WrongModality,
)
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import read_header

# A voxel this many times longer or shorter than the data set's median is most often another unit.
SPACING_RATIO = 3.0
SHORTEST_MM, LONGEST_MM = 5.0, 2500.0  # of a scan, along any axis
AIR_HU = -500  # what a CT with air or lung in it goes below, and what MR does not
EIGHT_BITS = 255
WINDOW_HU = 300  # what bone and contrast go above
NARROW_HU = 100  # less than lies between fat and an organ: values that were scaled
LARGEST = 1e7  # beyond what any scanner stores
MANY, NEARLY_ALL = 0.01, 0.999  # parts of the voxels


@dataclass(frozen=True)
class Finding:
    """An error keeps a case from being used; a warning is for somebody to look at.

    case_id: None where it is about the whole data set.
    """

    case_id: str | None
    severity: Literal["error", "warning"]
    fault: Fault


def check_dataset(
    plugin: DomainPlugin, dataset: Dataset, on_case: Callable[[str], None]
) -> list[Finding]:
    """Read every case, test cases too; findings in the order of the cases, then of the whole."""
    cases = [*dataset.training, *dataset.test]
    findings, sound = [], []
    for case, found in attempt_each_case(cases, partial(_examine, plugin), None, on_case):
        if isinstance(found, Fault):
            findings.append(Finding(case.id, "error", found))
        else:
            findings += [Finding(case.id, "warning", oddity) for oddity in found.oddities]
            sound.append(found)
    findings += _of_the_whole(plugin, dataset)
    findings += _duplicates(sound)
    findings += _outliers(sound)
    findings += _missing_classes(plugin, sound)
    return findings


@dataclass(frozen=True)
class _Examined:
    """A sound case. classes: those of its label, None without one.

    content, drawn: digests of the voxels of its image and of its label.
    """

    case_id: str
    grid: Grid
    classes: frozenset[int] | None
    content: str
    drawn: str | None
    oddities: tuple[DataError, ...]


def _examine(plugin: DomainPlugin, case: Case) -> _Examined:
    image, labels = load_case(plugin, case)
    classes = None if labels is None else frozenset(np.unique(labels.array).tolist())
    # Nothing drawn is not the same drawing.
    drawn = _digest(labels.array) if labels is not None and labels.array.any() else None
    files = case.images if case.label is None else (*case.images, case.label)
    oddities = [*odd_headers(files)]
    oddities += odd_intensities(plugin.spec.modality, image.array, case.images)
    content = _digest(image.array)
    return _Examined(case.id, image.grid, classes, content, drawn, tuple(oddities))


def _digest(array: NDArray[np.generic]) -> str:
    """Of the voxels, slice by slice: a copy of a whole volume may be too much."""
    digest = hashlib.sha256(str(array.shape).encode())
    for channel in array if array.ndim == 4 else [array]:
        for plane in channel:
            digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def odd_headers(paths: Sequence[Path]) -> Iterator[DataError]:
    """What in the headers of files contradicts itself or was straightened; of DICOM, nothing."""
    for path in paths:
        header = read_header(path)
        if header is not None and header.contradiction_mm:
            yield ContradictoryPlace(
                f"{path} lies {header.contradiction_mm:.3g} mm apart by its sform and its qform"
                " (without one, pixdim), which claim to mean the same; the "
                f"{'sform' if header.by_sform else 'qform'} was taken",
                "Compare it with its source, and correct the wrong one.",
            )
        if header is not None and header.skewed:
            yield SkewedAxes(
                f"{path} has axes that are not quite at right angles; the nearest that are were"
                " taken",
                "Nothing has to be done. To be rid of it, export the file again.",
            )


def odd_intensities(
    modality: str, image: NDArray[np.float32], paths: Sequence[Path]
) -> Iterator[DataError]:
    """What in an image (c z y x) from these files is not as the modality's images are."""
    for channel, path in zip(image, [*paths] * len(image), strict=False):
        low, high = float(channel.min()), float(channel.max())
        if modality == "CT" and (reason := _no_ct(low, high)):
            yield SuspiciousIntensities(
                f"{path} is no CT in Hounsfield units: its values go from {low:g} to {high:g},"
                f" which looks like {reason}",
                "Export it again with the modality's own values.",
            )
        elif max(-low, high) > LARGEST or _constant_part(channel) > NEARLY_ALL:
            yield SuspiciousIntensities(
                f"{path} has values from {low:g} to {high:g}: nearly all are alike, or some are"
                " beyond what scanners store",
                "Look at the image: it may be empty, or a file of another type of voxels.",
            )
        elif modality == "MR" and (channel < AIR_HU).mean() > MANY:
            yield SuspiciousIntensities(
                f"{path} is declared as MR and has values down to {low:g}: it looks like a CT",
                "Compare the file with its source, and the modality in domain.toml.",
            )


def _no_ct(low: float, high: float) -> str | None:
    """What values from low to high look like in place of Hounsfield units."""
    if high - low < NARROW_HU:
        return "values that were scaled"
    if low >= 0:
        return "a window of 8 bits" if high <= EIGHT_BITS else "a rescale intercept left out"
    return "a window" if low > AIR_HU and high < WINDOW_HU else None


def _constant_part(channel: NDArray[np.float32]) -> float:
    """The part of the voxels that have the median's value."""
    return float((channel == np.median(channel[:, ::4, ::4])).mean())


def _of_the_whole(plugin: DomainPlugin, dataset: Dataset) -> Iterator[Finding]:
    theirs, ours = dataset.modality, plugin.spec.modality
    if "other" not in (theirs, ours) and theirs != ours:
        fault: DataError = WrongModality(
            f"{dataset.directory} says that it is {theirs}, and {plugin.name} is {ours}",
            "Give the data of this domain, or correct the modality in domain.toml.",
        )
        yield Finding(None, "warning", fault)
    pair = mirrored_pair(plugin.spec.class_names)
    if pair and "x" in plugin.spec.augmentation.mirror_axes:
        fault = MirroredSides(
            f"{plugin.name} mirrors left to right in training, and tells {' from '.join(pair)}",
            "Leave x out of augmentation.mirror_axes in domain.toml.",
        )
        yield Finding(None, "warning", fault)
    ids = [case.id for case in (*dataset.training, *dataset.test)]
    subjects = {plugin.spec.subject_of(one) for one in ids}
    if plugin.spec.subject and (subjects == {*ids} or len(subjects) == 1 < len(ids)):
        what = "one patient in all cases" if len(subjects) == 1 else "a patient in no case"
        fault = UnmatchedPattern(
            f"`subject` of {plugin.name} finds {what}", "Correct it in domain.toml."
        )
        yield Finding(None, "warning", fault)
    for pattern in sorted({one for rule in plugin.spec.unlabelled for one in rule.cases}):
        if pattern in ids:
            fault = NamedCase(
                f"`unlabelled` of {plugin.name} names the case {pattern}, and a spec travels: in"
                " bundles, and from a site to its coordinator",
                "Rename the cases, so that a pattern as site_b_* tells them.",
            )
            yield Finding(None, "warning", fault)
        elif not any(fnmatchcase(case_id, pattern) for case_id in ids):
            fault = UnmatchedPattern(
                f"`unlabelled` of {plugin.name} names the cases {pattern}, and there are none",
                "Correct the pattern in domain.toml.",
            )
            yield Finding(None, "warning", fault)


def _duplicates(cases: Sequence[_Examined]) -> Iterator[Finding]:
    first: dict[str, _Examined] = {}
    for case in cases:
        same_image = first.setdefault(case.content, case)
        same_label = first.setdefault(case.drawn, case) if case.drawn else case
        if same_image is not case:
            fault = DuplicateCase(
                f"{case.case_id} has the same voxels as {same_image.case_id}",
                "Remove one: a case that is trained on and tested on makes the test worthless.",
            )
            yield Finding(case.case_id, "error", fault)
        elif same_label is not case:
            fault = DuplicateCase(
                f"{case.case_id} has the same labels as {same_label.case_id}, on another image",
                "Look at both: one has most likely got the label file of the other.",
            )
            yield Finding(case.case_id, "warning", fault)


def _outliers(cases: Sequence[_Examined]) -> Iterator[Finding]:
    if not cases:
        return
    spacings = np.array([case.grid.spacing_zyx_mm for case in cases])
    median = np.median(spacings, axis=0)
    for case in cases:
        if fault := odd_size(case.grid, median, case.case_id, "the median"):
            yield Finding(case.case_id, "warning", fault)


def odd_size(
    grid: Grid, usual_zyx_mm: Sequence[float], name: str, whose: str
) -> SpacingOutlier | None:
    """Whether a canonical image has voxels far from the usual, which are `whose`, or is far too
    small or large."""
    spacing, usual = np.array(grid.spacing_zyx_mm), np.array(usual_zyx_mm)
    extent = spacing * grid.shape_zyx
    ratio = np.maximum(spacing / usual, usual / spacing).max()
    if ratio <= SPACING_RATIO and extent.min() >= SHORTEST_MM and extent.max() <= LONGEST_MM:
        return None
    shown = " x ".join(f"{side:g}" for side in spacing)
    size = " x ".join(f"{side:.4g}" for side in extent)
    return SpacingOutlier(
        f"{name} has voxels of {shown} mm and is {size} mm large (z y x); {whose} has voxels of"
        f" {' x '.join(f'{side:g}' for side in usual)} mm",
        "Look at the header: the unit may be another than mm, or an axis exchanged.",
    )


def _missing_classes(plugin: DomainPlugin, cases: Sequence[_Examined]) -> Iterator[Finding]:
    allowed = plugin.spec.empty_labels
    labelled = [case for case in cases if (case.drawn if allowed else case.classes is not None)]
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
