"""Write a domain's data as an nnU-Net raw data set, so that the two can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from u2net_platform.data.dataset import DESCRIPTION_FILE, Case, Dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import IGNORED
from u2net_platform.errors import NotWritable
from u2net_platform.files import atomic_directory, write_text
from u2net_platform.imaging.volume import write_array

FILE_ENDING = ".nii.gz"


def export_nnunet(
    plugin: DomainPlugin,
    dataset: Dataset,
    target: Path,
    number: int,
    on_case: Callable[[str], None],
) -> Path:
    """Write the folder `target/Dataset<number>_<Name>` and return it.

    Cases are as training here sees them before preparation: turned to LPS, cleaned by the plugin,
    with the classes of the spec; training cases without a label, which nnU-Net does not read, are
    left out. `number` is nnU-Net's, within 1..999.

    Raises:
        DataError: a case cannot be used; nothing is written.
        NotWritable, DiskFull: the folder is there already, or cannot be made.
    """
    name = "".join(part.capitalize() for part in re.split("[-_]", plugin.name))
    directory = target / f"Dataset{number:03d}_{name}"
    if there := sorted(target.glob(f"Dataset{number:03d}_*")):  # nnU-Net goes by the number
        raise NotWritable(f"{there[0]} exists already", "Choose another number, or remove it.")
    training = [case for case in dataset.training if case.label is not None]
    with atomic_directory(directory) as folder:
        for part, cases in (("Tr", training), ("Ts", dataset.test)):
            for case in cases:
                _write_case(plugin, case, folder, part)
                on_case(case.id)
        description = _description(plugin, dataset.name, len(training))
        write_text(folder / DESCRIPTION_FILE, json.dumps(description, indent=2) + "\n")
    return directory


def _write_case(plugin: DomainPlugin, case: Case, folder: Path, part: str) -> None:
    image, labels = load_case(plugin, case)
    for channel, array in enumerate(image.array):
        file = f"{case.id}_{channel:04d}{FILE_ENDING}"
        write_array(folder / f"images{part}" / file, array[None], image.grid)
    if labels is not None:
        spec, array = plugin.spec, labels.array
        ignored = array == IGNORED
        if spec.hidden_classes(case.id):
            ignored |= array == 0  # nnU-Net knows no unlabelled class: what may be one is ignored
        array = np.where(ignored, np.uint8(spec.classes), array)
        file = f"{case.id}{FILE_ENDING}"
        write_array(folder / f"labels{part}" / file, array[None], labels.grid)


def _description(plugin: DomainPlugin, name: str, cases: int) -> dict[str, Any]:
    spec = plugin.spec
    labels = {label: value for value, label in enumerate(("background", *spec.class_names))}
    if spec.ignore or spec.unlabelled:
        labels["ignore"] = spec.classes
    return {
        "name": name,
        "description": spec.description,
        "reference": spec.data.citation,
        "licence": spec.data.licence,
        "channel_names": {str(index): channel for index, channel in enumerate(spec.channels)},
        "labels": labels,
        "numTraining": cases,
        "file_ending": FILE_ENDING,
    }
