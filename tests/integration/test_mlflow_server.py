"""A real MLflow server, killed in the middle of a training run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.settings import Settings

FAST = ("--workers", "0", "--batch-voxels", "8192", "--device", "cpu")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


class Server:
    """`mlflow server` on a port of this machine alone, which keeps its database when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self._port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | QUIET, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                urlopen(f"{self.uri}/health").close()
                return
            except OSError:
                time.sleep(0.1)
        pytest.fail((self._folder / "log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)  # the server's own session: it has workers
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.kill()


def test_a_server_killed_in_mid_run_learns_everything_later(site, server, monkeypatch) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("U2NET_TRACKING_URI", server.uri)
    u2net = [sys.executable, "-m", "u2net_platform"]
    run = subprocess.Popen(
        [*u2net, "train", "box", "--cycles", "40", *FAST],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    client = MlflowClient(server.uri)
    mlflow_id = _first_curve(client)
    server.kill()
    _, talk = run.communicate(timeout=120)
    assert run.returncode == 0, talk
    assert "u2net model sync" in talk

    catalog = Catalog.open(Settings().database_url)
    version = catalog.find("box")
    curves = catalog.runs.get(version.run_id)
    assert curves.status == "completed"
    assert (Path(curves.directory) / "outbox.jsonl").exists()

    server.start()
    synced = subprocess.run(
        [*u2net, "model", "sync", "--json"], capture_output=True, text=True, check=False
    )
    assert synced.returncode == 0, synced.stderr
    told = json.loads(synced.stdout)["data"]
    assert told["runs"] == [version.run_id]
    assert version.reference in told["registered"]
    assert not (Path(curves.directory) / "outbox.jsonl").exists()

    assert client.get_run(mlflow_id).info.status == "FINISHED"
    history = client.get_metric_history(mlflow_id, "loss/box")
    assert [point.step for point in history] == [10, 20, 30, 40]
    kept = {one.path for one in client.list_artifacts(mlflow_id)}
    assert {"versions.json", "box"} <= kept
    there = client.get_model_version("u2net-box", told["registered"][version.reference][-1])
    assert there.run_id == mlflow_id


def _first_curve(client: MlflowClient) -> str:
    """The id of the run once the server has a point of its loss."""
    for _ in range(600):
        experiment = client.get_experiment_by_name("u2net")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        if runs and "loss/box" in runs[0].data.metrics:
            return str(runs[0].info.run_id)
        time.sleep(0.1)
    pytest.fail("the run has told the server nothing within a minute")
