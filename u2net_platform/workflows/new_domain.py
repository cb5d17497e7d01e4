"""Write a plugin for a data set that is already in one of the two layouts read here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from u2net_platform.data.dataset import Dataset
from u2net_platform.domains.plugin import CARD_FILE, SPEC_FILE
from u2net_platform.domains.spec import DomainSpec, mirrored_pair
from u2net_platform.domains.toml import to_toml
from u2net_platform.errors import NotWritable
from u2net_platform.files import atomic_directory

NOT_STATED = "not stated"
IGNORE = "ignore"  # nnU-Net's name for what counts for nothing


def write_plugin(name: str, dataset: Dataset, target: Path) -> Path:
    """Write the plugin folder `target/name` (domain.toml and data card) and return it.

    Every label is a class of its own; merge some by editing `values`.

    Raises:
        InvalidSpec: the name, or a label of the data set, is none that a domain may have.
        NotWritable: the folder is there already, or cannot be made.
    """
    directory = target / name
    if directory.exists():
        raise NotWritable(
            f"{directory} exists already", "Choose another name, or remove that folder first."
        )
    spec = _spec_of(name, dataset)
    with atomic_directory(directory) as temporary:
        (temporary / SPEC_FILE).write_text(to_toml(spec), encoding="utf-8")
        (temporary / CARD_FILE).write_text(_data_card(spec, dataset), encoding="utf-8")
    return directory


def _spec_of(name: str, dataset: Dataset) -> DomainSpec:
    content: dict[str, Any] = {
        "name": name,
        "description": dataset.description or dataset.name,
        "modality": dataset.modality,
        "channels": dataset.channels,
        "labels": [
            {"name": label, "values": [value]}
            for value, label in sorted(dataset.labels.items())
            if label.lower() != IGNORE
        ],
        "ignore": [value for value, label in dataset.labels.items() if label.lower() == IGNORE],
        # Hounsfield units mean the same in every volume; other modalities' numbers do not.
        "intensity": {"statistics": "dataset" if dataset.modality == "CT" else "image"},
        "data": {
            "dataset": dataset.name,
            "licence": dataset.licence or NOT_STATED,
            "citation": dataset.reference,
        },
    }
    if mirrored_pair(dataset.labels.values()):
        # A mirrored left kidney would be taught as a left kidney, but looks like a right one.
        content["augmentation"] = {"mirror_axes": []}
    return DomainSpec.parse(content, f"the plugin {name!r} for {dataset.directory}")


def _data_card(spec: DomainSpec, dataset: Dataset) -> str:
    labels = "".join(
        f"| {', '.join(map(str, label.values))} | {label.name} |\n" for label in spec.labels
    )
    return f"""# {spec.name}: {spec.description}

| | |
|---|---|
| data set | {spec.data.dataset} |
| modality | {spec.modality} |
| channels | {", ".join(spec.channels)} |
| cases | {len(dataset.training)} with labels, {len(dataset.test)} without |
| licence | {spec.data.licence} |
| citation | {spec.data.citation or NOT_STATED} |

| value in the label files | class |
|---|---|
{labels}
## Using it

    u2net domain add {spec.name} --data DIR
    u2net domain check {spec.name}

DIR is the folder with `dataset.json`. This card and `domain.toml` were written from that file:
read both before you pass results on, and add what is known of the data and their quirks.
"""
