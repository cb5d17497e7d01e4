import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click import Group
from typer.main import get_command
from typer.testing import CliRunner

from u2net_platform.cli.app import app

CHECKOUT = Path(__file__).parents[3]
HEAVY = ("torch", "numpy", "mlflow", "sqlalchemy", "SimpleITK", "pydicom", "scipy", "pydantic")
PROBE = """
import sys
from u2net_platform.cli import main
sys.argv = ["u2net", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=sys.stderr)
"""


# Commands that compute nothing: whoever asks how a run stands waits for no library of networks.
LIGHT = """
import sys
from u2net_platform.cli.app import app
for line in sys.stdin.read().splitlines():
    try:
        app(line.split())
    except SystemExit as end:
        assert end.code != 2, line  # it got as far as its work
    loaded = {"torch", "mlflow", "scipy", "batchgenerators"} & {*sys.modules}
    assert not loaded, (line, loaded)
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def commands(group: Group, *path: str) -> list[list[str]]:
    found = []
    for name, command in group.commands.items():
        inner = [*path, name]
        found += commands(command, *inner) if isinstance(command, Group) else [inner]
    return found


def test_help_answers_without_loading_what_is_heavy() -> None:
    run = python("-c", PROBE)
    assert run.returncode == 0, run.stderr
    assert not set(HEAVY) & set(run.stderr.split())


def test_help_answers_at_once() -> None:
    def seconds(*arguments: str) -> float:
        """Of the processor, which a busy machine does not change."""
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*arguments).returncode == 0
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (end.ru_utime - start.ru_utime) + (end.ru_stime - start.ru_stime)

    python("-m", "u2net_platform", "--help")  # writes the byte code
    least = min(seconds("-c", "import typer.rich_utils") for _ in range(3))  # what any help takes
    assert min(seconds("-m", "u2net_platform", "--help") for _ in range(3)) < 3 * least


def test_commands_that_compute_nothing_load_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    site, digest = tmp_path / "site", "a" * 64
    lines = [
        "federation status", "federation init --host localhost", "federation sites",
        f"site init north --folder {site}", f"site key {site}", f"site approve {site} {digest}",
        f"federation add north --key {site}/site.key.pub", "domain list", "domain show heart",
        "model list", "model history heart", "catalog status", "catalog gc", "info",
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", LIGHT], input="\n".join(lines), capture_output=True, text=True,
        cwd=CHECKOUT, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_the_module_runs_as_a_program() -> None:
    run = python("-m", "u2net_platform", "--help")
    assert "domain" in run.stdout


@pytest.mark.parametrize("path", commands(get_command(app)), ids=" ".join)  # type: ignore[arg-type]
def test_every_command_has_an_example_and_speaks_json(path: list[str]) -> None:
    text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).stdout
    assert f"u2net {' '.join(path)}" in text
    assert "--json" in text
