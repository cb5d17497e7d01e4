"""What is derived from a domain's data: the grid, the patch, and how the network pools it.

Source: Huang et al., 3D U²-Net, MICCAI 2019, section 3 (median spacing, patches of the median
shape's aspect, pooling until a side is about 8), and Isensee et al., nnU-Net, Nature Methods 18
(2021), supplementary note 2 (coarse axes are pooled later; kernels of 1 along them until then).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from u2net_platform.data.borders import Border
from u2net_platform.data.dataset import Case
from u2net_platform.data.integrity import digest_of_case, load_case
from u2net_platform.data.places import Place
from u2net_platform.data.workers import for_each_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import IGNORED, DomainSpec, Statistics, digest_of
from u2net_platform.errors import EmptyLabel, TooFewCases
from u2net_platform.imaging.cropping import cropped_to_nonzero
from u2net_platform.imaging.grid import Grid, Shape, Spacing
from u2net_platform.imaging.volume import ImageVolume, LabelVolume

BATCH_SIZES = (2, 9)  # the paper's smallest and largest batch
TRANSITIONS = 5  # between the network's six levels
SMALLEST_SIDE = 4  # of a feature map; the last pooling of a side of 8 leads to it
# Measured: what a step of a universal network takes for each voxel of its batch, on the CPU, and
# for each class there.
TRAINING_BYTES_PER_VOXEL, AND_CLASS = 3300, 20
VOXELS_PER_CASE = 10_000  # bound on what a case adds to the foreground statistics


def training_bytes(voxels: int, classes: int) -> int:
    """What a step takes for a batch of so many voxels."""
    return voxels * (TRAINING_BYTES_PER_VOXEL + AND_CLASS * classes)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassFrequency(Frozen):
    """cases: how many have the class. share: its part of all voxels that are not ignored."""

    cases: int
    share: float


class Fingerprint(Frozen):
    """A data set in numbers: medians over its cases, cropped to what is not zero.

    `classes`: entry k is class k, 0 is background. `foreground`: per channel, over labelled voxels
    of all cases; None where each image is normalised by itself.
    """

    cases: int
    spacing_zyx_mm: Spacing
    shape_zyx: Shape
    extent_zyx_mm: Spacing
    classes: tuple[ClassFrequency, ...]
    foreground: tuple[Statistics, ...] | None
    data_digest: str


LEARNED = {"keep_largest", "places", "border"}


class Plan(Frozen):
    """How a domain's cases are prepared and its network is built.

    `shape_zyx` is the median case at the plan's spacing; `kernels_zyx` has one entry a level,
    `strides_zyx` one for each transition from a level to the next.

    A published version has `LEARNED` besides. keep_largest: classes of which only the largest part
    is kept, as that helped on validation cases. places: where classes lie, by name. border: what
    its spec declares one for.
    """

    spacing_zyx_mm: Spacing
    shape_zyx: Shape
    patch_zyx: Shape
    strides_zyx: tuple[Shape, Shape, Shape, Shape, Shape]
    kernels_zyx: tuple[Shape, Shape, Shape, Shape, Shape, Shape]
    batch_size: int
    statistics: tuple[Statistics, ...] | None
    keep_largest: tuple[str, ...] = ()
    places: dict[str, Place] = {}
    border: Border | None = None

    @property
    def digest(self) -> str:
        """Digest of what training needs."""
        return digest_of(self.model_dump(mode="json", exclude=LEARNED))

    @property
    def preparation_digest(self) -> str:
        """Digest of what changes a prepared case, and of nothing else."""
        part = self.model_dump_json(include={"spacing_zyx_mm", "statistics"})
        return hashlib.sha256(part.encode()).hexdigest()


def take_fingerprint(
    plugin: DomainPlugin, cases: Sequence[Case], on_case: Callable[[str], None]
) -> Fingerprint:
    """Read every training case once and note what the plan needs.

    Raises:
        TooFewCases: there is no case.
        InvalidCases: cases are at fault; each is named.
        EmptyLabel: no case has a foreground voxel.
    """
    if not cases:
        raise TooFewCases(f"{plugin.name} has no case to plan from", "Add training cases.")
    taken = for_each_case(plugin, cases, partial(_measure, plugin), None, on_case)
    if not any(one.voxels[1:IGNORED].any() for one in taken):
        raise EmptyLabel(f"No case of {plugin.name} has a foreground voxel", "Label some cases.")
    shapes = [one.box.shape_zyx for one in taken]
    spacings = [one.box.spacing_zyx_mm for one in taken]
    samples = [one.sample for one in taken if one.sample is not None]
    digests = sorted(one.digest for one in taken)
    return Fingerprint(
        cases=len(cases),
        spacing_zyx_mm=_median(spacings),
        shape_zyx=_whole(_median(shapes)),
        extent_zyx_mm=_median(np.multiply(shapes, spacings)),
        classes=_frequencies([one.voxels for one in taken], plugin.spec.classes),
        foreground=_statistics(samples, plugin.spec.intensity.clip_percentiles),
        data_digest=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


@dataclass(frozen=True)
class _Measured:
    """One case: its box that is not zero, voxels by class, intensities of the foreground (c n)."""

    box: Grid
    voxels: NDArray[np.int64]
    sample: NDArray[np.float32] | None
    digest: str


def _measure(plugin: DomainPlugin, case: Case) -> _Measured:
    image, labels = load_case(plugin, case)
    sample, voxels = None, np.zeros(256, np.int64)
    if labels is not None:
        voxels = np.bincount(labels.array.ravel(), minlength=256)
        if plugin.spec.intensity.statistics == "dataset":
            sample = _foreground_sample(image, labels)
    return _Measured(cropped_to_nonzero(image).grid, voxels, sample, digest_of_case(case))


def derive_plan(spec: DomainSpec, fingerprint: Fingerprint, batch_voxels: int) -> Plan:
    """Fit patch, pooling and batch to the median case and a budget of voxels per batch."""
    declared = spec.geometry.spacing_zyx_mm
    spacing = fingerprint.spacing_zyx_mm if declared == "median" else declared
    shape = _whole(np.maximum(1, np.divide(fingerprint.extent_zyx_mm, spacing)))
    own = spec.plan
    patch = own.patch_zyx or _patch(shape, spacing, batch_voxels)
    strides, kernels = pooling(patch, spacing, own.strides_zyx)
    smallest, largest = BATCH_SIZES
    batch = min(largest, max(smallest, batch_voxels // math.prod(patch)))
    return Plan.model_validate(
        {
            "spacing_zyx_mm": spacing,
            "shape_zyx": shape,
            "patch_zyx": patch,
            "strides_zyx": strides,
            "kernels_zyx": own.kernels_zyx or kernels,
            "batch_size": own.batch_size or batch,
            "statistics": own.statistics or fingerprint.foreground,
        }
    )


def pooling(
    patch_zyx: Shape, spacing_zyx_mm: Spacing, declared: Sequence[Shape] | None = None
) -> tuple[list[Shape], list[Shape]]:
    """Strides of the five transitions, unless they are declared, and kernels of the six levels for
    a patch.

    An axis is halved while at least `SMALLEST_SIDE` is left of it and, among the axes that can
    still be halved, its spacing is less than twice the finest. Along an axis of more than twice
    the finest spacing a level's kernel is 1, but never again once it was 3.
    """
    side, spacing = np.array(patch_zyx, float), np.array(spacing_zyx_mm, float)
    kernel = np.ones(3, int)
    strides, kernels = [], []
    for level in range(TRANSITIONS + 1):
        kernel = np.where(spacing > 2 * spacing.min(), kernel, 3)
        kernels.append(_whole(kernel))
        if level == TRANSITIONS:
            break
        stride = np.array(declared[level]) if declared else _stride(side, spacing)
        side, spacing = side / stride, spacing * stride
        strides.append(_whole(stride))
    return strides, kernels


def _stride(side: NDArray[np.float64], spacing: NDArray[np.float64]) -> NDArray[np.int64]:
    poolable = side / 2 >= SMALLEST_SIDE
    finest = spacing[poolable].min(initial=np.inf)
    return np.where(poolable & (spacing < 2 * finest), 2, 1)


def _patch(shape: Shape, spacing: Spacing, batch_voxels: int) -> Shape:
    """The median shape, made divisible, and shrunk until two patches fit into a batch."""
    patch = _divisible(shape, spacing, np.ceil)
    while math.prod(patch) * 2 > batch_voxels:
        excess = [side / whole if side > 8 else 0 for side, whole in zip(patch, shape, strict=True)]
        if not any(excess):
            break
        axis = int(np.argmax(excess))
        smaller = list(patch)
        smaller[axis] -= _multiples(patch, spacing)[axis]
        # Rounded down, so that every turn of the loop leaves less.
        patch = _divisible(_whole(smaller), spacing, np.floor)
    return patch


def _divisible(patch: Shape, spacing: Spacing, rounding: np.ufunc) -> Shape:
    """Round to what the patch's own pooling divides; that may allow more pooling, so repeat."""
    while True:
        multiples = _multiples(patch, spacing)
        rounded = _whole(rounding(np.divide(patch, multiples)) * multiples)
        if rounded == patch:
            return patch
        patch = rounded


def _multiples(patch: Shape, spacing: Spacing) -> NDArray[np.int64]:
    """What each side of the patch must be a multiple of: the product of its strides."""
    strides: NDArray[np.int64] = np.array(pooling(patch, spacing)[0])
    return np.asarray(strides.prod(axis=0))


def _foreground_sample(image: ImageVolume, labels: LabelVolume) -> NDArray[np.float32]:
    """Evenly spread foreground voxels of a case, c n, at most `VOXELS_PER_CASE` of them."""
    found = np.flatnonzero((labels.array > 0) & (labels.array != IGNORED))
    kept = found[:: math.ceil(len(found) / VOXELS_PER_CASE) or 1]
    return image.array.reshape(len(image.array), -1)[:, kept]


def _frequencies(voxels: list[NDArray[np.int64]], classes: int) -> tuple[ClassFrequency, ...]:
    table = np.array(voxels)[:, :classes]
    shares = table.sum(axis=0) / max(1, table.sum())
    return tuple(
        ClassFrequency(cases=int((table[:, k] > 0).sum()), share=float(shares[k]))
        for k in range(classes)
    )


def _statistics(
    samples: list[NDArray[np.float32]], percentiles: tuple[float, float]
) -> tuple[Statistics, ...] | None:
    if not samples:
        return None
    channels = np.concatenate(samples, axis=1).astype(np.float64)
    low, high = np.percentile(channels, percentiles, axis=1)
    return tuple(
        Statistics(mean=float(values.mean()), std=float(values.std()), low=low[c], high=high[c])
        for c, values in enumerate(channels)
    )


def _median(rows: Sequence[Sequence[float]] | NDArray[np.float64]) -> Spacing:
    # NIfTI holds 32-bit numbers; what lies beyond their precision is noise.
    z, y, x = np.median(np.asarray(rows, float), axis=0).round(6)
    return float(z), float(y), float(x)


def _whole(sides: Sequence[float] | NDArray[np.generic]) -> Shape:
    z, y, x = np.rint(np.asarray(sides, float))
    return int(z), int(y), int(x)
