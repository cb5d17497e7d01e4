"""The wheel holds what a user needs, and nothing of a site's or of the tests'."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(CHECKOUT)]
    if importlib.util.find_spec("hatchling"):
        command.append("--no-isolation")
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    (built,) = folder.glob("*.whl")
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_the_migrations_the_plugins_and_the_recipes(wheel: Path) -> None:
    names = names_in(wheel)
    below_package = {
        "_alembic": CHECKOUT.glob("alembic/versions/*.py"),
        "_plugins": CHECKOUT.glob("plugins/*/domain.toml"),
        "training": CHECKOUT.glob("u2net_platform/training/recipes/*.toml"),
    }
    for folder, sources in below_package.items():
        found = [name for name in names if name.startswith(f"u2net_platform/{folder}/")]
        expected = {path.name for path in sources}
        assert expected
        assert expected <= {Path(name).name for name in found}
    assert "u2net_platform/_alembic/env.py" in names
    assert "u2net_platform/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_has_nothing_of_sites_tests_or_benchmarks(wheel: Path) -> None:
    tops = {Path(name).parts[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"u2net_platform"}
    assert not any("__pycache__" in name or name.endswith(".db") for name in names_in(wheel))


def test_the_command_line_works_from_the_wheel_outside_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("U2NET_")}
    environment |= {"PYTHONPATH": str(site), "U2NET_HOME": str(tmp_path / "home")}
    answers = [
        subprocess.run(
            [sys.executable, "-m", "u2net_platform", *command, "--json"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for command in (["domain", "list"], ["domain", "show", "spleen"])
    ]
    bundled = {path.parent.name for path in CHECKOUT.glob("plugins/*/domain.toml")}
    domains = json.loads(answers[0])["data"]["domains"]
    assert {row["name"] for row in domains} >= bundled
    directory = Path(json.loads(answers[1])["data"]["directory"])
    assert directory.is_relative_to(site / "u2net_platform" / "_plugins")
