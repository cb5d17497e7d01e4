"""A network and a domain's plan, as one thing that turns images into labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations
from math import ceil, prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from u2net_platform.data.integrity import check_image
from u2net_platform.data.plan import Plan
from u2net_platform.data.preprocessing import Prepared
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import TooLarge
from u2net_platform.imaging.cropping import cropped_to_nonzero
from u2net_platform.imaging.grid import Grid, Shape, canonical_grid
from u2net_platform.imaging.resampling import SLAB_VOXELS, labels_from_scores, respaced
from u2net_platform.imaging.volume import (
    COPIES,
    ImageVolume,
    LabelVolume,
    canonical,
    turned_back,
)
from u2net_platform.inference.postprocessing import (
    BYTES_PER_CLEANED_VOXEL,
    cleaned_classes,
    postprocess,
)
from u2net_platform.inference.sliding_window import sliding_window, window_count
from u2net_platform.memory import (
    free_bytes,
    give_back_freed_memory,
    held_bytes,
    keep_freed_memory,
)

# Measured beside 512 x 512 x 800 voxels, above what the arrays themselves take.
BYTES_PER_SLAB_VOXEL = 16  # of resampling: SimpleITK's copies, and a spline's coefficients
BYTES_PER_PATCH_VOXEL = 1024  # of the network's layers
BYTES_PER_PATCH_SCORE = 16  # of each class there, and of each class's mean over mirror images
CPU_BATCH_VOXELS = 1 << 18  # as in training on a CPU; what a GPU's plan asks for takes memory
LARGEST_GROWTH = 1.25  # of a window over the patch, along an axis
SCATTERED_BYTES = 192 << 20  # of freed memory in pieces that do not fit again; differs by run


class Predictor:
    """Predicts one domain. Moves the network to `device`, and puts it into evaluation mode for
    as long as a prediction lasts.

    memory: bytes that the whole process may hold, the image itself included; what is free on this
        machine, unless given. Within it the prepared image is held whole, or made in slabs.
    mirror: mean over the image and its mirror images along the axes that the domain may be
        mirrored along.
    """

    def __init__(
        self,
        network: nn.Module,
        plugin: DomainPlugin,
        plan: Plan,
        device: torch.device,
        memory: int | None = None,
        mirror: bool = False,
    ) -> None:
        """`network(x, domain=name)` gives logits."""
        self.network = network.to(device)
        self.plugin = plugin
        self.plan = plan
        self.device = device
        self.memory = memory
        self._mirrored = [()] if not mirror else _mirrored(plugin.spec.augmentation.mirror_axes)

    def predict(self, image: ImageVolume, name: str = "The image") -> LabelVolume:
        """Labels on the image's own grid, whatever its spacing and orientation.

        Raises:
            WrongChannels, NonFiniteImage, EmptyImage: it is none of this domain; `name` says which.
            BrokenPlugin: a hook of the plugin fails.
            TooLarge: it does not fit into the memory that is allowed.
        """
        return self.predict_made(self.prepare(image, name), image.grid)

    def require_room(self, reading_bytes: int, name: str) -> None:
        """Stop before an image is read.

        Raises:
            TooLarge: reading alone takes more than is allowed.
        """
        give_back_freed_memory()  # of the image before, and of training
        needed, allowed = held_bytes() + reading_bytes, self._allowed()
        if needed > allowed:
            raise _too_large(f"Reading {name}", needed, allowed)

    def prepare(self, image: ImageVolume, name: str = "The image") -> Prepared:
        """The image as the network sees it, all of it at once where memory allows.

        Raises: as `predict`.
        """
        return self.prepare_clean(check_image(self.plugin, canonical(image), name))

    def windows(self, prepared: Prepared) -> int:
        """How many patches of it the network will see."""
        shape = prepared.grid.shape_zyx
        return window_count(shape, self._window(shape))

    def prepare_clean(self, image: ImageVolume) -> Prepared:
        """As `prepare`, for an image as `load_case` returns it: canonical and cleaned.

        Raises:
            TooLarge
        """
        return Prepared(image, self.plugin.spec, self.plan, hold=self._may_hold(image))

    def predict_clean(self, image: ImageVolume, target: Grid) -> LabelVolume:
        """Labels on `target` for an image as `load_case` returns it: canonical and cleaned.

        target: the image's grid, in any orientation.
        """
        return self.predict_made(self.prepare_clean(image), target)

    def predict_made(self, prepared: Prepared, target: Grid) -> LabelVolume:
        """Labels on `target` for an image that was prepared for this domain, or as for it."""
        grid = prepared.grid
        turned = canonical_grid(target)
        slabs = (slab.numpy() for slab in self._scores(prepared, grid.shape_zyx))
        labels = postprocess(
            self.plugin,
            labels_from_scores(slabs, grid, prepared.image_grid, turned),
            turned.spacing_zyx_mm,
            self.plan.keep_largest,
            {name: place.on(grid, turned) for name, place in self.plan.places.items()},
            self.plan.border,
        )
        return LabelVolume(turned_back(labels, target), target)

    def predict_prepared(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Classes (z y x) of a prepared image (c z y x), on the plan's grid."""
        shape = (image.shape[1], image.shape[2], image.shape[3])
        slabs = self._scores(_Array(image), shape)
        return torch.cat([slab.argmax(0).to(torch.uint8) for slab in slabs]).numpy()

    @property
    def preparation(self) -> tuple[object, ...] | None:
        """Domains for which this is equal see an image alike; None is equal to no other."""
        if self.plugin.clean_image:
            return None
        spec, plan = self.plugin.spec, self.plan
        return (
            spec.channels, spec.intensity, spec.geometry, plan.spacing_zyx_mm, plan.statistics
        )  # fmt: skip

    def _scores(self, image: Prepared | _Array, shape: tuple[int, int, int]) -> Iterator[Tensor]:
        """Class probabilities, slabs of k z y x in main memory: only patches go to the device."""
        keep_freed_memory()
        window = self._window(shape)
        mode = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            yield from sliding_window(
                lambda start, stop: torch.tensor(
                    image.planes(start, stop)
                ),  # a copy: may be a file
                shape,
                window,
                self._probabilities,
                self._batch_size(window),
            )
        finally:
            for module, training in mode:
                module.training = training

    def _window(self, shape_zyx: tuple[int, int, int]) -> tuple[int, int, int]:
        """The patch; for an image that is larger by `LARGEST_GROWTH` along an axis at most, all of
        it: one window is faster than several, and sees the organ whole."""
        patch = self.plan.patch_zyx
        little = all(s <= LARGEST_GROWTH * p for s, p in zip(shape_zyx, patch, strict=True))
        if not little or self._common_patch:  # to which a patch is resized
            return patch
        steps = np.prod(self.plan.strides_zyx, axis=0)
        z, y, x = (
            max(p, ceil(s / step) * int(step))
            for s, p, step in zip(shape_zyx, patch, steps, strict=True)
        )
        return z, y, x

    @property
    def _common_patch(self) -> tuple[int, int, int] | None:
        architecture = getattr(self.network, "architecture", None)
        return architecture.common_patch_zyx if architecture else None

    def _probabilities(self, patches: Tensor) -> Tensor:  # b c z y x -> b k z y x
        """A patch that is the same everywhere, as air in a CT, is background unseen."""
        found = patches.new_zeros((len(patches), self.plugin.spec.classes, *patches.shape[2:]))
        found[:, 0] = 1
        seen = (patches.amax((2, 3, 4)) > patches.amin((2, 3, 4))).any(1)
        if seen.any():
            x = patches[seen].contiguous(memory_format=torch.channels_last_3d).to(self.device)
            total = self._once(x, self._mirrored[0])
            for axes in self._mirrored[1:]:
                total += self._once(x, axes)
            found[seen] = (total / len(self._mirrored)).to(found.device)
        return found

    def _once(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        try:
            logits = self.network(x.flip(axes) if axes else x, domain=self.plugin.name)
        except torch.OutOfMemoryError as error:
            raise TooLarge(
                f"{self.device} has no room for {len(x)} patches of {tuple(x.shape[2:])} voxels",
                "End other programs there, or predict on the CPU: --device cpu.",
            ) from error
        found = torch.softmax(logits.float(), dim=1)
        return found.flip(axes) if axes else found

    def require_fit(self, image: ImageVolume) -> None:
        """Stop before labels are predicted of an image that was prepared for another domain.

        Raises:
            TooLarge: this domain takes more than is allowed.
        """
        turned = canonical(image)
        needed = self._least_bytes(turned.grid, cropped_to_nonzero(turned).grid)
        self._require(needed, image)

    def _may_hold(self, image: ImageVolume) -> bool:
        """Whether all of the prepared image fits beside what a prediction needs anyhow."""
        box = cropped_to_nonzero(image).grid
        least = self._least_bytes(image.grid, box)
        grid = respaced(box, self.plan.spacing_zyx_mm)
        whole = least + 4 * self._channels * prod(grid.shape_zyx)
        self._require(least if self.plan.statistics else whole, image)
        return whole <= self._allowed()

    def _require(self, needed: int, image: ImageVolume) -> None:
        if needed > (allowed := self._allowed()):
            size = " x ".join(map(str, image.grid.shape_zyx))
            raise _too_large(f"A prediction of {size} voxels", needed, allowed)

    def _batch_size(self, window: Shape) -> int:
        """Patches at a time. It does not hang on free memory: in another batch the network rounds
        otherwise, and a voxel between two classes may get the other one."""
        if self.device.type != "cpu":
            return self.plan.batch_size
        voxels = prod(self._common_patch or window)
        return max(1, min(self.plan.batch_size, CPU_BATCH_VOXELS // voxels))

    def _patch_bytes(self, window: Shape) -> int:
        """What a patch takes; its layers lie in the memory of the device."""
        layers = BYTES_PER_PATCH_VOXEL if self.device.type == "cpu" else 4 * self._channels
        voxel = layers + BYTES_PER_PATCH_SCORE * self.plugin.spec.classes
        return max(prod(window), prod(self._common_patch or ())) * voxel

    @property
    def _channels(self) -> int:
        return len(self.plugin.spec.channels)

    def _least_bytes(self, image: Grid, box: Grid) -> int:
        """Held at most, beside the prepared image.

        image: its canonical grid. box: the part of it that is not zero, which alone is predicted.
        """
        channels, voxels = self._channels, prod(image.shape_zyx)
        grid = respaced(box, self.plan.spacing_zyx_mm)
        window = self._window(grid.shape_zyx)
        _, height, width = (max(pair) for pair in zip(grid.shape_zyx, window, strict=True))
        depth = window[0]
        # Image, weights and sums a patch deep; twice while they move on. Means, and joined to the
        # plane before.
        slab = 4 * depth * height * width * (2 * channels + 3 * self.plugin.spec.classes + 2)
        batch = self._batch_size(window) * self._patch_bytes(window)
        resampling = BYTES_PER_SLAB_VOXEL * min(SLAB_VOXELS, max(voxels, prod(grid.shape_zyx)))
        # Labels as they are made and turned; then beside parts, or a file as it is read back.
        drawn = self.plan.border and not self.plugin.postprocess
        cleaned = cleaned_classes(self.plugin, self.plan.keep_largest) or drawn
        after = 1 + max(BYTES_PER_CLEANED_VOXEL * bool(cleaned), COPIES)
        # An image's own percentiles are found in a copy of a channel.
        sorting = 0 if self.plan.statistics else 4 * prod(grid.shape_zyx)
        most = max(2 * voxels + max(slab + batch, resampling), after * voxels, sorting)
        give_back_freed_memory()
        return held_bytes() + SCATTERED_BYTES + most

    def _allowed(self) -> int:
        """Bytes that this process may hold."""
        there = held_bytes() + free_bytes()
        return there if self.memory is None else min(there, self.memory)


def _too_large(what: str, needed: int, allowed: int) -> TooLarge:
    return TooLarge(
        f"{what} needs about {needed / 2**30:.1f} GiB of memory, and {allowed / 2**30:.1f} GiB are"
        " allowed",
        "Allow more (--memory), close other programs, or take a larger machine.",
    )


class _Array:
    """A prepared image that is there as an array, c z y x."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self._array = array

    def planes(self, start: int, stop: int) -> NDArray[np.float32]:
        return self._array[:, start:stop]


def _mirrored(axes: tuple[str, ...]) -> list[tuple[int, ...]]:
    """All sets of axes of b c z y x, with none first."""
    numbers = [2 + "zyx".index(axis) for axis in axes]
    sets = chain.from_iterable(combinations(numbers, size) for size in range(len(numbers) + 1))
    return list(sets)
