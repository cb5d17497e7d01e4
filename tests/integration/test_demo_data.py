"""The demo on data sets that are there already, up to where it would train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from u2net_platform.workflows.demo import DemoOptions, run_demo


class Listener:
    """Notes the commands and leaves before training."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, command: str) -> None:
        self.said.append(command)
        if "train" in command:
            raise StopIteration

    def on_case(self, case: str) -> None: ...

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"{name} before training")


def test_a_folder_gets_its_bundled_plugin_or_one_of_its_own(site, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("Dataset002_Heart", "Task02_Heart", "Task77_Box", "Task78_Box"):
        shutil.copytree(site.data, data / name)
    (data / "no_data").mkdir()
    listener = Listener()
    with pytest.raises(StopIteration):
        run_demo(DemoOptions(tmp_path / "demo", data, 1, 0, "cpu"), listener)
    names = {
        "dataset002_heart": "Dataset002_Heart",
        "heart": "Task02_Heart",
        "box": "Task77_Box",
        "task78_box": "Task78_Box",
    }
    expected = [
        line
        for name, folder in names.items()
        for line in (
            f"u2net domain add {name} --data {data / folder}",
            f"u2net domain check {name}",
        )
    ]
    assert listener.said[:-1] == expected
    plugins = tmp_path / "demo" / "home" / "plugins"
    assert sorted(path.name for path in plugins.iterdir()) == sorted({*names} - {"heart"})
