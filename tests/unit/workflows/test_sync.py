from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord
from u2net_platform.errors import CatalogUnreachable, RunBusy
from u2net_platform.files import exclusive
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder, find_run
from u2net_platform.tracking.outbox import send_outbox
from u2net_platform.workflows import sync
from u2net_platform.workflows.request import LOCK_FILE
from u2net_platform.workflows.sync import send_outboxes


def outbox_of(settings: Settings, directory: str, run_id: str = "run-1") -> Path:
    """The outbox of a run that ended while MLflow was down, from its first word to its last."""
    catalog = Catalog.open(settings.database_url)
    catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled")
    Path(directory).mkdir(parents=True, exist_ok=True)
    catalog.runs.create(
        RunRecord(
            id=run_id, kind="train", mode="universal", domains=("heart",), recipe={}, seed=0,
            fold=0, device="cpu", directory=directory, status="completed",
        )
    )  # fmt: skip
    entries = [
        {"call": "log_params", "params": {"seed": 7}},
        {"call": "log_points", "points": [["loss", 2.0, 1, 1000], ["loss", 1.0, 2, 2000]]},
        {"call": "finish", "status": "completed"},
    ]
    outbox = Path(directory) / "outbox.jsonl"
    outbox.write_text("\n".join(json.dumps(entry) for entry in entries))
    return outbox


@pytest.fixture
def waiting(settings: Settings) -> Path:
    return outbox_of(settings, str(settings.runs_dir / "run-1"))


@pytest.mark.parametrize("directory", ["", "elsewhere", "home/runs/../../elsewhere"])
def test_what_lies_outside_of_the_homes_runs_is_neither_sent_nor_removed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings.runs_dir.mkdir(parents=True)
    outbox = outbox_of(settings, directory)
    assert send_outboxes(settings) == ([], {})
    assert outbox.exists()


def test_what_waits_is_sent_once(settings: Settings, waiting: Path) -> None:
    assert send_outboxes(settings) == (["run-1"], {})
    assert not waiting.exists()
    assert send_outboxes(settings) == ([], {})
    client = MlflowClient(settings.mlflow_uri)
    found = find_run(client, "run-1")
    assert found is not None
    assert client.get_run(found).data.params == {"seed": "7"}
    history = client.get_metric_history(found, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert MLflowRecorder(settings, "run-1").run_id == found


def test_a_run_at_work_sends_its_own_and_a_killed_one_is_sent_for(
    settings: Settings, waiting: Path
) -> None:
    Catalog.open(settings.database_url).runs.update("run-1", "running", 2)
    with exclusive(waiting.with_name(LOCK_FILE)):
        assert send_outboxes(settings) == ([], {})
    assert send_outboxes(settings) == (["run-1"], {})


def test_a_run_that_mlflow_refuses_keeps_no_other_back(settings: Settings, waiting: Path) -> None:
    refused = outbox_of(settings, str(settings.runs_dir / "run-2"), "run-2")
    with refused.open("a") as more:
        more.write('\n{"call": "log_points", "points": [["no (name)", 1.0, 1, 1000]]}')
    sent, failed = send_outboxes(settings)
    assert (sent, list(failed)) == (["run-1"], ["run-2"])
    assert "no (name)" in failed["run-2"]
    assert refused.exists() and not waiting.exists()


def test_a_run_that_goes_on_meanwhile_waits_until_its_outbox_is_sent(
    settings: Settings, waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(file: Path, recorder: MLflowRecorder) -> None:
        with pytest.raises(RunBusy), exclusive(file.with_name(LOCK_FILE)):
            pass
        send_outbox(file, recorder)

    monkeypatch.setattr(sync, "send_outbox", send)
    assert send_outboxes(settings) == (["run-1"], {})


def test_it_stays_while_nobody_answers(
    settings: Settings, waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:  # bound and never listening: who asks is refused at once
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        down = settings.model_copy(update={"tracking_uri": uri})
        before = waiting.read_bytes()
        with pytest.raises(CatalogUnreachable, match="run-1"):
            send_outboxes(down)
    assert waiting.read_bytes() == before
