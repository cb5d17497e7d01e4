"""Prepared cases on disk, found by a digest of everything that made them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from u2net_platform.data.dataset import Case
from u2net_platform.data.integrity import digest_of_case, load_case
from u2net_platform.data.plan import Plan
from u2net_platform.data.preprocessing import preprocess
from u2net_platform.data.workers import for_each_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import IGNORED
from u2net_platform.errors import MissingFile
from u2net_platform.files import atomic_directory
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.resampling import resample_labels
from u2net_platform.imaging.volume import ImageVolume, LabelVolume

# Part of the key of a prepared case; raise it when preparation computes something else.
PREPARATION_VERSION = 2
FOREGROUND_VOXELS = 10_000  # kept per class, to centre patches on


@dataclass(frozen=True)
class PreparedCase:
    """A case as training reads it. The arrays stay on disk until a part of them is used."""

    id: str
    directory: Path

    @property
    def image(self) -> NDArray[np.float32]:
        """Normalised intensities, c z y x."""
        return self._array("image")

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Classes, z y x."""
        return self._array("labels")

    @property
    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Class → evenly spread voxels of it (n x 3, z y x), of the classes that are there."""
        with np.load(self.directory / "foreground.npz", allow_pickle=False) as voxels:
            return {int(name): voxels[name] for name in voxels.files}

    def foreground_voxel(self, rng: np.random.Generator) -> NDArray[np.int32] | None:
        """A voxel (z y x) of a class by chance; None where the case shows none."""
        with np.load(self.directory / "foreground.npz", allow_pickle=False) as voxels:
            if not voxels.files:
                return None
            chosen = voxels[rng.choice(sorted(voxels.files, key=int))]
        voxel: NDArray[np.int32] = chosen[rng.integers(len(chosen))]
        return voxel

    @property
    def grid(self) -> Grid:
        """That of image and labels, in physical space."""
        meta = json.loads((self.directory / "meta.json").read_text(encoding="utf-8"))
        return Grid(*(tuple(meta[one.name]) for one in fields(Grid)))

    def _array(self, name: str) -> NDArray[Any]:
        path = self.directory / f"{name}.npy"
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


@dataclass(frozen=True)
class TrainingDomain:
    """A domain's prepared cases, and how it is seen."""

    plugin: DomainPlugin
    plan: Plan
    training: Sequence[PreparedCase]
    validation: Sequence[PreparedCase]


class PreparedStore:
    """Prepared cases below one folder; what is there already is not made again."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self, plugin: DomainPlugin, plan: Plan, case: Case) -> PreparedCase:
        """The prepared case, made now unless its files, the plugin and the plan made it before.

        Raises:
            DataError: the case is at fault, or has no label.
            NotWritable, DiskFull: it cannot be stored; nothing half-written stays.
        """
        if case.label is None:
            raise MissingFile(f"{case.id} has no label", "Training needs labelled cases.")
        parts = _parts(plugin, plan, case)
        directory = self._directory(plugin, parts)
        if not directory.exists():
            image, labels = load_case(plugin, case)
            assert labels is not None  # the case has a label file
            prepared = preprocess(image, plugin.spec, plan)
            how = plugin.spec.geometry.label_interpolation
            with atomic_directory(directory) as folder:
                _write(folder, prepared, resample_labels(labels, prepared.grid, how), parts)
        note_use(directory)
        return PreparedCase(case.id, directory)

    def find(self, plugin: DomainPlugin, plan: Plan, case: Case) -> PreparedCase | None:
        """The prepared case, if it is there and its files still are."""
        try:
            directory = self._directory(plugin, _parts(plugin, plan, case))
        except MissingFile:
            return None
        if not directory.exists():
            return None
        note_use(directory)
        return PreparedCase(case.id, directory)

    def _directory(self, plugin: DomainPlugin, parts: dict[str, str]) -> Path:
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self.root / plugin.name / key


def note_use(directory: Path) -> None:
    """So that what nobody uses any more can be told; on another user's, it is left."""
    with suppress(OSError):
        os.utime(directory / "meta.json")


def _parts(plugin: DomainPlugin, plan: Plan, case: Case) -> dict[str, str]:
    """Everything that a prepared case depends on."""
    return {
        "case": digest_of_case(case),
        "plugin": plugin.preparation_digest,
        "preparation": plan.preparation_digest,
        "version": str(PREPARATION_VERSION),
    }


def prepare_cases(
    store: PreparedStore,
    plugin: DomainPlugin,
    plan: Plan,
    cases: Sequence[Case],
    on_case: Callable[[str], None],
) -> list[PreparedCase]:
    """Prepare all cases, in their order.

    Raises:
        InvalidCases: some are at fault; each is named with its reason, after all were tried.
    """
    there = {case.id: store.find(plugin, plan, case) for case in cases}
    missing = [case for case in cases if there[case.id] is None]
    work = partial(store.prepare, plugin, plan)
    made = iter(for_each_case(plugin, missing, work, plan.spacing_zyx_mm, on_case))
    return [there[case.id] or next(made) for case in cases]


def _write(folder: Path, image: ImageVolume, labels: LabelVolume, parts: dict[str, str]) -> None:
    np.save(folder / "image.npy", np.ascontiguousarray(image.array))
    np.save(folder / "labels.npy", np.ascontiguousarray(labels.array))
    voxels: dict[str, Any] = {
        str(value): _spread(labels.array == value)
        for value in np.unique(labels.array)
        if value not in (0, IGNORED)
    }
    np.savez(folder / "foreground.npz", **voxels)
    grid = image.grid
    meta = {
        "digests": parts,
        "shape_zyx": grid.shape_zyx,
        "spacing_zyx_mm": grid.spacing_zyx_mm,
        "origin_lps_mm": grid.origin_lps_mm,
        "direction_lps": grid.direction_lps,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")


def _spread(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Evenly spread voxels of a mask, n x 3 (z y x), at most `FOREGROUND_VOXELS`."""
    voxels = np.argwhere(mask)
    return voxels[:: math.ceil(len(voxels) / FOREGROUND_VOXELS)].astype(np.int32)
