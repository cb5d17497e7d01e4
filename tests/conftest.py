"""Fixtures that every test may use."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from u2net_platform.model import topology
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


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a quarter of the channels, for what does not hang on their size and makes many:
    in this process alone."""
    monkeypatch.setattr(topology, "WIDTH", 4)


# Of the session, so that the variable is read before `settings` clears the environment.
@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MSD task folders; skips where it is absent."""
    folder = Path(os.environ.get("U2NET_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}; U2NET_TEST_DATA may name a folder of them")
    return folder


class Kills:
    """Kills a command at random moments between its beginning and its end."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        # Processes that begin at once: what they import is loaded before.
        heavy = ("alembic.command", "alembic.config", "u2net_platform.workflows.bundle")
        self._context.set_forkserver_preload(list(heavy))

    def __call__(
        self,
        work: Callable[..., object],
        arguments: Callable[[int], tuple[object, ...]],
        then: Callable[[int], None],
        count: int,
    ) -> None:
        """Kill `work(*arguments(k))` in mid-work `count` times; `then(k)` looks at what it left.

        How long it takes is measured first. One that was quicker than its kill does not count.
        """
        _, longest_s = (self._seconds(work, arguments(k)) for k in (-2, -1))
        moment, killed, trial = random.Random(0), 0, 0
        while killed < count:
            process = self._started(work, arguments(trial))
            time.sleep(moment.uniform(0, longest_s))
            process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                killed += 1
            else:
                assert process.exitcode == 0
                longest_s *= 0.9
            then(trial)
            trial += 1

    def _seconds(self, work: Callable[..., object], arguments: tuple[object, ...]) -> float:
        process = self._started(work, arguments)
        began = time.monotonic()
        process.join()
        assert process.exitcode == 0
        return time.monotonic() - began

    def _started(self, work: Callable[..., object], arguments: tuple[object, ...]) -> Any:
        """The process, once it is about to begin."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_announced, args=(theirs, work, arguments))
        process.start()
        theirs.close()
        assert ours.recv() == "ready"
        return process


def _announced(begun: Any, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    begun.send("ready")
    work(*arguments)


@pytest.fixture(scope="session")
def kills() -> Kills:
    return Kills()


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
