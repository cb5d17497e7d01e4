"""The batches that training sees: a pure function of seed, domain and how many it had before.

Because a batch depends on nothing else that came before it, a resumed run and any number of workers
see the same batches, and a domain's k-th batch is the same whether others train beside it or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from u2net_platform.data.augmentation import Augmenter
from u2net_platform.data.store import PreparedCase
from u2net_platform.data.workers import belong_to_parent
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.imaging.grid import Shape

GOLDEN_RATIO = (1 + 5**0.5) / 2
BATCHES_AHEAD = 4  # of a few workers together; of many, one of each

Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True)
class Batch:
    """One step's patches: images b c z y x float32, labels b z y x uint8.

    hidden: b k bool, the classes that are unlabelled in each; None where all are labelled.
    """

    domain: str
    images: Tensor
    labels: Tensor
    hidden: Tensor | None = None


class PatchSource:
    """Batches of one domain. A third of each, rounded up, is centred on foreground."""

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        augmenter: Augmenter,
        batch_size: int,
        spec: DomainSpec | None = None,
    ) -> None:
        """`spec` says which classes are unlabelled in a case; all are labelled without it."""
        self.augmenter = augmenter
        self.batch_size = batch_size
        # Opened for each patch: a process may not keep the files of thousands of cases open.
        self._cases = cases
        self._hidden: Tensor | None = None
        if spec is not None and spec.unlabelled:
            self._hidden = torch.zeros(len(cases), spec.classes, dtype=torch.bool)
            for row, case in zip(self._hidden, cases, strict=True):
                row[list(spec.hidden_classes(case.id))] = True

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, labels and hidden classes, as a `Batch` has them."""
        on_foreground = -(-self.batch_size // 3)
        patches = [self._patch(rng, index < on_foreground) for index in range(self.batch_size)]
        images, labels, chosen = zip(*patches, strict=True)
        hidden = None if self._hidden is None else self._hidden[list(chosen)]
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), hidden

    def _patch(
        self, rng: np.random.Generator, on_foreground: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], int]:
        chosen = int(rng.integers(len(self._cases)))
        case = self._cases[chosen]
        image, labels = case.image, case.labels
        patch = self.augmenter.patch_zyx
        centre = _random_centre(rng, labels.shape, patch)
        if on_foreground and (voxel := case.foreground_voxel(rng)) is not None:
            centre = _within(voxel, labels.shape, patch)
        source = self.augmenter.source_zyx
        changed = self.augmenter(
            cut(image, centre, source), cut(labels, centre, source), int(rng.integers(2**32))
        )
        return *changed, chosen


def _random_centre(
    rng: np.random.Generator, shape: Sequence[int], patch: Shape
) -> NDArray[np.int64]:
    """A centre from which a patch reaches nowhere beyond the volume, where it fits in."""
    return np.array(
        [
            side // 2 if side <= size else rng.integers(size // 2, side - size + size // 2 + 1)
            for side, size in zip(shape, patch, strict=True)
        ]
    )


def _within(centre: NDArray[np.int32], shape: Sequence[int], patch: Shape) -> NDArray[np.int64]:
    low = [min(size // 2, side // 2) for side, size in zip(shape, patch, strict=True)]
    high = [
        max(side - size + size // 2, side // 2) for side, size in zip(shape, patch, strict=True)
    ]
    return np.clip(centre.astype(np.int64), low, high)


def cut(array: NDArray[Element], centre: NDArray[np.int64], size: Shape) -> NDArray[Element]:
    """A box of the last three axes around a centre, zero beyond the array."""
    start = centre - np.array(size) // 2
    inside = [
        slice(max(0, first), max(0, min(side, first + width)))
        for first, side, width in zip(start, array.shape[-3:], size, strict=True)
    ]
    part = array[..., inside[0], inside[1], inside[2]]
    before = [max(0, -int(first)) for first in start]
    padding = [(0, 0)] * (array.ndim - 3) + [
        (low, width - low - have)
        for low, width, have in zip(before, size, part.shape[-3:], strict=True)
    ]
    return np.pad(part, padding)


class PatchStream(Dataset[Batch]):
    """Item k is the batch of optimiser step k.

    The domains take turns. Where `weights` are given, each has its share of any stretch of steps,
    to within a few: so any stretch takes about as long as another.
    """

    def __init__(
        self,
        sources: Mapping[str, PatchSource],
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.sources = dict(sources)
        self.seed = seed
        self.weights = weights
        # Turns of each domain in the steps before this one: most often the next one is asked for.
        self._counted, self._turns = 0, np.zeros(len(self.sources), np.int64)

    def __getitem__(self, step: int) -> Batch:
        domain, turn = self._turn(step)
        name = int.from_bytes(hashlib.sha256(domain.encode()).digest()[:8], "big")
        rng = np.random.default_rng([self.seed, name, turn])
        return Batch(domain, *self.sources[domain].batch(rng))

    def _turn(self, step: int) -> tuple[str, int]:
        """The domain of a step, and how many steps it had before."""
        names = list(self.sources)
        if self.weights is None:
            return names[step % len(names)], step // len(names)
        ends = np.cumsum([self.weights[name] for name in names])
        if step < self._counted:
            self._counted, self._turns = 0, np.zeros(len(names), np.int64)
        # Multiples of the golden ratio fill 0..1 evenly, wherever one begins.
        points = np.arange(self._counted, step + 1) * GOLDEN_RATIO % 1
        turns = np.searchsorted(ends / ends[-1], points, side="right")
        self._turns += np.bincount(turns[:-1], minlength=len(names))
        self._counted = step
        return names[turns[-1]], int(self._turns[turns[-1]])

    def from_step(self, step: int, workers: int) -> Iterator[Batch]:
        """Endless batches from a step on; with workers, made ahead of time in other processes."""
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=count(step),
                num_workers=workers,
                prefetch_factor=_ahead_of_each(workers) if workers else None,
                worker_init_fn=lambda _: belong_to_parent(),
            )
        )


def batches_ahead(workers: int) -> int:
    """How many batches may be ready before they are asked for."""
    return workers * _ahead_of_each(workers)


def _ahead_of_each(workers: int) -> int:
    return max(1, BATCHES_AHEAD // max(1, workers))
