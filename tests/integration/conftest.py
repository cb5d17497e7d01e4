"""A user at the command line: a home with a small trained domain, and ways to spoil things."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

CASES = 6
BOX_TOML = """\
name = "box"
description = "A bright box"
modality = "MR"
channels = ["T1"]
labels = [{ name = "box", values = [1] }]
data = { dataset = "made up", licence = "CC0-1.0" }
"""
DESCRIPTION = {
    "name": "Box",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "box"},
    "training": [
        {"image": f"imagesTr/box_{k}.nii.gz", "label": f"labelsTr/box_{k}.nii.gz"}
        for k in range(CASES)
    ],
}
TRAIN_FLAGS = ("--cycles", "2", "--workers", "0", "--batch-voxels", "8192", "--device", "cpu")


def u2net(*arguments: object) -> Result:
    """The command line in this process, with what `U2NET_*` says now."""
    from u2net_platform.cli.app import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Site:
    """A home, and a data set that its domain `box` was added with."""

    home: Path
    data: Path

    def case(self, number: int) -> tuple[Path, Path]:
        """Image and label file."""
        name = f"box_{number}.nii.gz"
        return self.data / "imagesTr" / name, self.data / "labelsTr" / name

    def part(self, name: str) -> list[int]:
        """Cases of the first fold's training, validation or test part."""
        from u2net_platform.data.splits import split_cases

        found = getattr(split_cases([f"box_{k}" for k in range(CASES)], fold=0), name)
        return [int(case.removeprefix("box_")) for case in found]

    def kept(self) -> dict[str, bytes]:
        """All files, but for those that a database keeps beside itself while it is open, and what
        is remembered of files that were read."""
        return {
            str(path): path.read_bytes()
            for folder in (self.home, self.data)
            for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith(("-wal", "-shm", ".db", "digests.json"))
        }


def _write_data(folder: Path) -> None:
    from u2net_platform.imaging.grid import Grid
    from u2net_platform.imaging.volume import write_array

    grid = Grid((14, 18, 20), (2.0, 1.0, 1.5), (5.0, -8.0, 30.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))
    for number, pair in enumerate(DESCRIPTION["training"]):
        labels = np.zeros(grid.shape_zyx, np.uint8)
        labels[4:9, 5 : 11 + number % 3, 6:14] = 1
        noise = np.random.default_rng(number).normal(0, 20, labels.shape)
        image = (100 + 300.0 * labels + noise).astype(np.int16)
        write_array(folder / pair["image"], image[None], grid)
        write_array(folder / pair["label"], labels[None], grid)
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))


@pytest.fixture(scope="session")
def trained_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Trained once, for all tests; they get copies of it."""
    import torch

    site = Site(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("Box"))
    _write_data(site.data)
    plugin = site.home / "plugins" / "box"
    plugin.mkdir(parents=True)
    (plugin / "domain.toml").write_text(BOX_TOML)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for volumes this small a second one only waits
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("U2NET_")]:
            patch.delenv(name)
        patch.setenv("U2NET_HOME", str(site.home))
        for command in (("domain", "add", "box", "--data", site.data), ("train", "box")):
            flags = TRAIN_FLAGS if command[0] == "train" else ()
            result = u2net(*command, *flags)
            assert result.exit_code == 0, result.output
    torch.set_num_threads(threads)
    return site


@pytest.fixture
def site(trained_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A copy of the trained home and its data, in use by `U2NET_HOME`."""
    import torch

    copy = Site(tmp_path / "home", tmp_path / "Box")
    shutil.copytree(trained_site.home, copy.home)
    shutil.copytree(trained_site.data, copy.data)
    for name in [name for name in os.environ if name.startswith("U2NET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("U2NET_HOME", str(copy.home))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert u2net("domain", "add", "box", "--data", copy.data).exit_code == 0
    yield copy
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Disk:
    """A small file system of its own."""

    folder: Path

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 10, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def mount() -> Iterator[Callable[..., Disk]]:
    """Mount a tmpfs of some size on a folder; skips where that is not allowed."""
    mounted: list[Path] = []

    def on(folder: Path, options: str) -> Disk:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a file system of its own cannot be mounted here: {error}")
        mounted.append(folder)
        return Disk(folder)

    yield on
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
