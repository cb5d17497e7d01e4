"""Every folder of real volumes goes through the commands without special handling."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
import SimpleITK
from typer.testing import CliRunner

from u2net_platform.cli.app import app
from u2net_platform.data.dataset import open_dataset
from u2net_platform.domains.discovery import discover, find_plugin
from u2net_platform.settings import Settings

FOLDERS = (
    "Task02_Heart",
    "Task03_Liver",
    "Task04_Hippocampus",
    "Task05_Prostate",
    "Task07_Pancreas",
    "Task09_Spleen",
    "Task21_HeadNeck",
    "Task25_Promise12",
)
BLOCK_MM = 80


def u2net(*arguments: object) -> Any:
    """What a command answers; it must succeed."""
    started = time.monotonic()
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    print(f"{time.monotonic() - started:7.1f} s  u2net {' '.join(map(str, arguments))}")  # noqa: T201
    return json.loads(result.stdout)["data"]


@pytest.fixture
def folder(request: pytest.FixtureRequest, real_data: Path) -> Path:
    """One of the folders; with `-k` a single one."""
    found = real_data / request.param
    if not found.is_dir():
        pytest.skip(f"{found} is not there")
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in [name for name in os.environ if name.startswith("U2NET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    yield Settings()


def added(folder: Path, settings: Settings) -> str:
    """Add the bundled domain that the folder is of, else one that is written for it."""
    name = folder.name.partition("_")[2].lower()
    if name not in {found.name for found in discover(settings)}:
        u2net("domain", "new", name, "--from-dataset", folder)
    record = u2net("domain", "add", name, "--data", folder)["record"]
    assert record["data_dir"] == str(folder.resolve())
    return name


def middle_of(path: Path) -> SimpleITK.Image:
    """A block of an image, in its place: a whole abdomen takes half an hour on two cores."""
    image = SimpleITK.ReadImage(str(path))
    part = [slice(None)] * image.GetDimension()
    for axis, (size, spacing) in enumerate(
        zip(image.GetSize()[:3], image.GetSpacing()[:3], strict=True)
    ):
        side = min(size, round(BLOCK_MM / spacing))
        start = (size - side) // 2
        part[axis] = slice(start, start + side)
    return image[tuple(part)]


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_a_real_folder_is_added_and_planned_and_all_its_cases_are_sound(
    folder: Path, home: Settings
) -> None:
    name = added(folder, home)
    assert u2net("domain", "check", name)["findings"] == []
    plan = u2net("domain", "plan", name)["plan"]
    strides = [prod(axis) for axis in zip(*plan["strides_zyx"], strict=True)]
    assert all(side % by == 0 for side, by in zip(plan["patch_zyx"], strides, strict=True))
    assert prod(plan["patch_zyx"]) * 2 <= 2**18


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_a_real_folder_is_trained_on_and_its_prediction_lies_where_its_image_lies(
    folder: Path, home: Settings, tmp_path: Path
) -> None:
    name = added(folder, home)
    prepared = u2net("prepare", name)
    assert prepared["split"]["training"] > 0
    trained = u2net("train", name, "--cycles", "2", "--workers", "0")
    assert [run["status"] for run in trained["runs"]] == ["completed"]
    image, target = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    SimpleITK.WriteImage(middle_of(open_dataset(folder).training[-1].images[0]), str(image))
    u2net("predict", "--domain", name, "-i", image, "-o", target)

    given, made = SimpleITK.ReadImage(str(image)), SimpleITK.ReadImage(str(target))
    axes = given.GetDimension()
    directions = given.GetDirection()
    in_space = [directions[row * axes + column] for row in range(3) for column in range(3)]
    assert made.GetSize() == given.GetSize()[:3]
    assert made.GetSpacing() == pytest.approx(given.GetSpacing()[:3], abs=1e-5)
    assert made.GetOrigin() == pytest.approx(given.GetOrigin()[:3], abs=1e-4)
    assert made.GetDirection() == pytest.approx(in_space, abs=1e-5)
    classes = len(find_plugin(name, home).working.spec.labels)
    assert SimpleITK.GetArrayViewFromImage(made).max() <= classes
