"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from u2net_platform.settings import Settings

CHECKOUT = Path(__file__).parents[1]

# Kernels for CUDA are interpreted where there is no GPU. Triton asks when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty home; what reads the environment itself sees the same home."""
    for name in [name for name in os.environ if name.startswith("U2NET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    return Settings()


# Of the session, so that the variable is read before `settings` clears the environment.
@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MSD task folders; skips where it is absent."""
    folder = Path(os.environ.get("U2NET_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}; U2NET_TEST_DATA may name a folder of them")
    return folder


MINIMAL_SPEC = """\
name = "{name}"
description = "A made-up organ"
modality = "CT"
channels = ["CT"]
labels = [{{ name = "organ", values = [1, 2] }}]
data = {{ dataset = "none", licence = "CC0-1.0" }}
"""


@pytest.fixture
def new_plugin() -> Callable[..., Path]:
    """Write a small working plugin `parent/name`, with code in its plugin.py if given."""

    def write(parent: Path, name: str, code: str | None = None) -> Path:
        directory = parent / name
        directory.mkdir(parents=True)
        (directory / "domain.toml").write_text(MINIMAL_SPEC.format(name=name))
        (directory / "README.md").write_text(f"# {name}\nLicence: CC0-1.0\n")
        if code is not None:
            (directory / "plugin.py").write_text(code)
        return directory

    return write


@pytest.fixture
def msd_folder(tmp_path: Path) -> Path:
    """A task folder as the Decathlon lays it out, with one case whose files are empty."""
    folder = tmp_path / "Task99_Ears"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
        (folder / name / "ear_1.nii.gz").touch()
    description = {
        "name": "Ears",
        "description": 'Both ears, "as found"',
        "licence": "CC0-1.0",
        "reference": "nobody",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "left_ear", "2": "right_ear"},
        "training": [{"image": "./imagesTr/ear_1.nii.gz", "label": "./labelsTr/ear_1.nii.gz"}],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder
