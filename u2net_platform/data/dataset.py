"""Data sets as they lie on disk: MSD task folders and nnU-Net raw folders."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError

from u2net_platform.domains.spec import list_faults
from u2net_platform.errors import InvalidDataset, MissingFile

DESCRIPTION_FILE = "dataset.json"
# DICOM's and the usual names of what a channel may be called; anything else is "other".
MODALITY_WORDS = {
    "CT": {"CT"},
    "PET": {"PET", "FDG"},
    "US": {"US", "ULTRASOUND"},
    "MR": {"MR", "MRI", "T1", "T2", "T1W", "T2W", "T1C", "T1CE", "T1GD", "T2F", "FLAIR"}
    | {"DWI", "ADC", "LGE", "PD", "PDW", "SWI", "BSSFP"},
}


@dataclass(frozen=True)
class Case:
    """One subject's files: one image file that holds every channel, or one file per channel."""

    id: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """A folder of cases and what its dataset.json says.

    labels: value → name, without the background. nnU-Net ignores the voxels of one named `ignore`.
    """

    name: str
    directory: Path
    channels: tuple[str, ...]
    labels: dict[int, str]
    training: tuple[Case, ...]
    test: tuple[Case, ...]
    licence: str
    reference: str
    description: str

    @property
    def modality(self) -> Literal["CT", "PET", "US", "MR", "other"]:
        """The modality of the channels; CT if any is, since its numbers are Hounsfield units."""
        words = {word for name in self.channels for word in re.split(r"[^A-Z0-9]+", name.upper())}
        if words & MODALITY_WORDS["CT"]:
            return "CT"
        if words & MODALITY_WORDS["PET"]:
            return "PET"
        if words & MODALITY_WORDS["US"]:
            return "US"
        return "MR" if words & MODALITY_WORDS["MR"] else "other"


class _Pair(BaseModel):
    image: str
    label: str | None = None


def _as_pair(entry: object) -> object:
    return {"image": entry} if isinstance(entry, str) else entry


def _as_text(value: object) -> object:
    """Who has nothing to say may write null; who has several things, a list."""
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


_Entry = Annotated[_Pair, BeforeValidator(_as_pair)]
_Text = Annotated[str, BeforeValidator(_as_text)]


class _Description(BaseModel):
    """What is read of a dataset.json; MSD and both generations of nnU-Net write other keys."""

    name: _Text = ""
    description: _Text = ""
    reference: _Text = ""
    licence: _Text = Field("", validation_alias=AliasChoices("licence", "license"))
    channels: dict[int, str] = Field(
        min_length=1, validation_alias=AliasChoices("channel_names", "modality")
    )
    labels: dict[str, str | int | list[int]] = Field(min_length=1)
    training: list[_Entry] | None = None
    test: list[_Entry] = []
    file_ending: str = ".nii.gz"


def open_dataset(directory: Path, complete: bool = True) -> Dataset:
    """Read the folder's dataset.json and find the files of every case.

    complete: whether a file that is not there is an error; else whoever reads its case finds out.

    Raises:
        MissingFile: there is no such folder.
        InvalidDataset: it has no readable dataset.json, or not the files that this promises.
    """
    if not directory.is_dir():
        raise MissingFile(f"{directory} is no folder", "Give the folder that holds dataset.json.")
    try:
        return _open(directory, complete)
    except OSError as error:  # a name that is too long, a folder that must not be read
        raise InvalidDataset(
            f"{directory} cannot be read: {error.strerror}: {str(error.filename)[:200]}",
            f"Correct {DESCRIPTION_FILE}, or the permissions.",
        ) from error


def _open(directory: Path, complete: bool) -> Dataset:
    content = _describe(directory / DESCRIPTION_FILE)
    if not content.training:
        training = _numbered_cases(directory, "Tr", content)
        test = _numbered_cases(directory, "Ts", content)
    else:
        training = tuple(_listed_case(directory, entry, content) for entry in content.training)
        test = tuple(_listed_case(directory, entry, content) for entry in content.test)
    _check_cases(directory, training)
    if complete:
        _check_files(directory, training + test)
    return Dataset(
        name=content.name or directory.name,
        directory=directory,
        channels=tuple(content.channels[key] for key in sorted(content.channels)),
        labels=_labels(directory, content),
        training=training,
        test=test,
        licence=content.licence,
        reference=content.reference,
        description=content.description,
    )


def _describe(path: Path) -> _Description:
    try:
        return _Description.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError as error:
        raise InvalidDataset(
            f"{path.parent} has no {path.name}",
            "Give an MSD task folder or an nnU-Net raw data set folder.",
        ) from error
    except ValidationError as error:
        reason = f"breaks the format:\n{list_faults(error)}"
        raise InvalidDataset(f"{path} {reason}", "Correct the lines named above.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidDataset(f"{path} cannot be read: {error}", "Correct the file.") from error


def _labels(directory: Path, content: _Description) -> dict[int, str]:
    """Value → name, whichever of the two the file has as its key."""
    labels = {}
    for key, value in content.labels.items():
        number, name = (key, value) if key.isdecimal() else (value, key)
        try:
            labels[int(number)] = str(name)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise InvalidDataset(
                f"{directory / DESCRIPTION_FILE} has label {key!r} = {value!r}; regions are not"
                " read",
                "Give every label one value of its own; a domain.toml can merge values.",
            ) from error
    return {value: labels[value] for value in sorted(labels) if value != 0}


def _listed_case(directory: Path, entry: _Pair, content: _Description) -> Case:
    """A case of an MSD list. nnU-Net's first generation lists `case` for `case_0000`, ..."""
    image = _inside(directory, entry.image)
    case_id = re.sub(r"\.(nii\.gz|nii|nrrd|mha)$", "", image.name)
    numbered = _numbered_images(image.parent, case_id, content)
    images = (image,) if image.exists() or not numbered[0].exists() else numbered
    return Case(case_id, images, _inside(directory, entry.label) if entry.label else None)


def _inside(directory: Path, name: str) -> Path:
    """A file of the data set; by its name, as links may well lead elsewhere."""
    path = Path(os.path.normpath(directory / name))
    if not path.is_relative_to(os.path.normpath(directory)):
        raise InvalidDataset(
            f"{directory / DESCRIPTION_FILE} names a file outside its folder: {name[:200]}",
            "Copy or link it into the folder.",
        )
    return path


def _numbered_cases(directory: Path, part: str, content: _Description) -> tuple[Case, ...]:
    images, ending = directory / f"images{part}", content.file_ending
    pattern = re.compile(rf"(?!\.)(.+)_\d{{4}}{re.escape(ending)}")
    found = [pattern.fullmatch(path.name) for path in images.glob("*")]
    labels = directory / f"labels{part}"
    return tuple(
        Case(
            case_id,
            _numbered_images(images, case_id, content),
            labels / f"{case_id}{ending}" if part == "Tr" else None,
        )
        for case_id in sorted({match[1] for match in found if match})
    )


def _numbered_images(images: Path, case_id: str, content: _Description) -> tuple[Path, ...]:
    """The file of every channel declared, and one beyond if it is there."""
    names = [f"{case_id}_{index:04d}{content.file_ending}" for index in sorted(content.channels)]
    beyond = images / f"{case_id}_{len(names):04d}{content.file_ending}"
    return (*(images / name for name in names), *([beyond] if beyond.exists() else []))


def _check_cases(directory: Path, training: tuple[Case, ...]) -> None:
    if not training:
        raise InvalidDataset(f"{directory} has no training case", "Put some into imagesTr.")
    twice = [name for name, count in Counter(case.id for case in training).items() if count > 1]
    if twice:
        raise InvalidDataset(f"{directory} names {twice[0]} twice", "Remove one of the two.")


def _check_files(directory: Path, cases: tuple[Case, ...]) -> None:
    files = [path for case in cases for path in (*case.images, case.label) if path]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        listing = "\n".join(f"  {path}" for path in missing[:10])
        raise InvalidDataset(
            f"{len(missing)} files that {directory} promises do not exist, as:\n{listing}",
            "Copy them there, or take their cases out of dataset.json.",
        )
