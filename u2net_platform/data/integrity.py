"""The one gate through which cases come in: read, turned to LPS, and checked against the spec."""

from __future__ import annotations

import hashlib
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np

from u2net_platform.data.dataset import Case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import IGNORED, DomainSpec
from u2net_platform.errors import (
    BrokenPlugin,
    ContradictoryLabel,
    EmptyImage,
    EmptyLabel,
    MissingFile,
    NonFiniteImage,
    UnexpectedLabel,
    UnreadableImage,
    WrongChannels,
)
from u2net_platform.files import digest_of_file
from u2net_platform.imaging.volume import (
    ImageVolume,
    LabelVolume,
    canonical,
    read_image,
    read_labels,
)


def load_case(plugin: DomainPlugin, case: Case) -> tuple[ImageVolume, LabelVolume | None]:
    """A case in canonical orientation, its image cleaned and its label values merged to classes.

    Raises:
        MissingFile, UnsupportedFormat, UnreadableImage: a file is at fault.
        GeometryMismatch: image and label, or two channels, lie on different grids.
        WrongChannels, NonFiniteImage, EmptyImage: the image is none of this domain.
        UnexpectedLabel: the label holds a value that the spec does not name.
        EmptyLabel: the label has no foreground, and the spec does not allow that.
        ContradictoryLabel: it holds a class that is unlabelled in this case.
        BrokenPlugin: the plugin's clean_image fails.
    """
    name = str(case.images[0])
    image = read_image(case.images)
    labels = None
    if case.label is not None:
        labels = read_labels(case.label)
        image.grid.require_match(labels.grid, name, str(case.label))
        # From here on the two share a grid to the last digit, and so one orientation.
        merged = _merged(plugin.spec, labels, str(case.label))
        _check_hidden(plugin.spec, merged, case)
        labels = canonical(replace(merged, grid=image.grid))
    return check_image(plugin, canonical(image), name), labels


def check_image(plugin: DomainPlugin, image: ImageVolume, name: str = "The image") -> ImageVolume:
    """The image as the domain's clean_image leaves it, once it is fit for the domain.

    Raises:
        WrongChannels, NonFiniteImage, EmptyImage: it is none of this domain; `name` says which.
        BrokenPlugin: the plugin's clean_image fails.
    """
    channels = plugin.spec.channels
    if len(image.array) != len(channels):
        raise WrongChannels(
            f"{name} has {len(image.array)} channels; {plugin.name} has {len(channels)}:"
            f" {', '.join(channels)}",
            "Give all channels in this order, as one 4-D file or as one file per channel.",
        )
    image = _cleaned(plugin, image)
    if not np.isfinite(image.array).all():
        raise NonFiniteImage(f"{name} holds NaN or infinite values", "Replace them in the file.")
    for channel, array in zip(channels, image.array, strict=True):
        if array.size == 0 or array.min() == array.max():
            raise EmptyImage(
                f"{name} has one value everywhere in channel {channel}", "Export the image again."
            )
    return image


def files_of(case: Case) -> list[Path]:
    """In the order of its channels, label last."""
    return [path for path in (*case.images, case.label) if path]


def digest_of_case(case: Case) -> str:
    """Digest of the case's files, in the order of their channels, label last.

    Raises:
        MissingFile, UnreadableImage: one of them is not there, or may not be read.
    """
    try:
        digests = [digest_of_file(path) for path in files_of(case)]
    except FileNotFoundError as error:
        raise MissingFile(f"{error.filename} does not exist", "Copy it back.") from error
    except OSError as error:
        raise UnreadableImage(
            f"{error.filename} cannot be read: {error.strerror}", "Change its permissions."
        ) from error
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _merged(spec: DomainSpec, labels: LabelVolume, name: str) -> LabelVolume:
    """Source values to consecutive classes."""
    classes = {0: 0}
    for index, label in enumerate(spec.labels, start=1):
        classes.update(dict.fromkeys(label.values, index))
    classes.update(dict.fromkeys(spec.ignore, IGNORED))
    found = np.flatnonzero(np.bincount(labels.array.ravel()))
    unknown = [int(value) for value in found if int(value) not in classes]
    if unknown:
        raise UnexpectedLabel(
            f"{name} holds the values {', '.join(map(str, unknown))}, which {spec.name} does not"
            " name",
            "Correct the label, or add them to a label's values in domain.toml.",
        )
    empty = all(classes[int(value)] in (0, IGNORED) for value in found)
    if empty and not spec.empty_labels:
        raise EmptyLabel(
            f"{name} has no foreground voxel",
            "Label it, or leave the case out; if such cases are right, set empty_labels = true in"
            " domain.toml.",
        )
    table = np.array([classes.get(value, 0) for value in range(256)], np.uint8)
    return replace(labels, array=table[labels.array])


def _check_hidden(spec: DomainSpec, labels: LabelVolume, case: Case) -> None:
    for value in spec.hidden_classes(case.id):
        if (labels.array == value).any():
            raise ContradictoryLabel(
                f"{case.label} holds {spec.class_names[value - 1]}, which {spec.name} declares as"
                f" unlabelled in {case.id}",
                "Correct `unlabelled` in domain.toml, or `ignore` a value that is drawn in part.",
            )


def _cleaned(plugin: DomainPlugin, image: ImageVolume) -> ImageVolume:
    if plugin.clean_image is None:
        return image
    raw = image.array.view()
    raw.flags.writeable = False  # other domains may be given the same image
    try:
        with redirect_stdout(sys.stderr):
            array = np.asarray(plugin.clean_image(raw, image.grid.spacing_zyx_mm), np.float32)
    except Exception as error:  # a plugin's own code may raise anything
        raise BrokenPlugin(
            f"clean_image of {plugin.name} fails: {type(error).__name__}: {error}",
            f"Correct {plugin.directory / 'plugin.py'}.",
        ) from error
    if array.shape != image.array.shape:
        raise BrokenPlugin(
            f"clean_image of {plugin.name} turns shape {image.array.shape} into {array.shape}",
            f"Correct {plugin.directory / 'plugin.py'}: the shape must stay.",
        )
    return replace(image, array=array)
