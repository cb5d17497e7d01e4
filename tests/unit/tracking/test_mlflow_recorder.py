"""One real MLflow store on SQLite, read back with MLflow's own client."""

from __future__ import annotations

import json
import logging
import multiprocessing
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from mlflow import MlflowClient
from sqlalchemy.exc import OperationalError, ProgrammingError

from u2net_platform.errors import CatalogUnreachable, NotWritable
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder, TrackingDown, answering


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """MLflow takes seconds to make its tables: once is enough."""
    settings = Settings(home=tmp_path_factory.mktemp("mlflow"))
    MLflowRecorder(settings, "first").finish("completed")
    return settings


@pytest.fixture
def client(store: Settings) -> Iterator[MlflowClient]:
    return MlflowClient(store.mlflow_uri)


def test_parameters_curves_and_files_are_read_back(store: Settings, client: MlflowClient) -> None:
    recorder = MLflowRecorder(store, "heart and liver")
    recorder.log_params({"seed": 7, "domains": ["heart", "liver"]})
    recorder.log_points([("heart/loss", 2.5, 1, 0), ("liver/loss", 3.0, 1, 0)])
    recorder.log_points([("heart/loss", 1.5, 2, 0), ("liver/loss", 2.0, 2, 0)])
    recorder.log_text("a,b", "scores.csv")
    recorder.finish("completed")

    run = client.get_run(recorder.run_id)
    assert run.info.run_name == "heart and liver"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "7", "domains": "['heart', 'liver']"}
    curve = client.get_metric_history(recorder.run_id, "heart/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 2.5), (2, 1.5)]
    [kept] = client.list_artifacts(recorder.run_id)
    assert kept.path == "scores.csv"


def test_artifacts_lie_below_the_home(store: Settings, client: MlflowClient) -> None:
    recorder = MLflowRecorder(store, "artifacts")
    recorder.log_text("x", "note.txt")
    [note] = store.home.glob(f"mlartifacts/**/{recorder.run_id}/**/note.txt")
    assert note.read_text() == "x"


def test_a_value_too_long_for_mlflow_goes_to_a_file(
    store: Settings, client: MlflowClient, tmp_path: Path
) -> None:
    recorder = MLflowRecorder(store, "long")
    params = {"seed": 1, "patches": list(range(3000))}
    recorder.log_params(params)
    assert client.get_run(recorder.run_id).data.params == {"seed": "1"}
    path = client.download_artifacts(recorder.run_id, "recipe.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == params


def test_more_parameters_than_one_batch_takes_are_all_kept(
    store: Settings, client: MlflowClient
) -> None:
    recorder = MLflowRecorder(store, "many")
    recorder.log_params({f"p{index}": index for index in range(230)})
    assert len(client.get_run(recorder.run_id).data.params) == 230


def test_a_resumed_run_goes_on_with_its_curves(store: Settings, client: MlflowClient) -> None:
    first = MLflowRecorder(store, "resumed")
    first.log_params({"seed": 1})
    first.log_points([("loss", 2.0, 1, 0)])
    first.finish("interrupted")
    assert client.get_run(first.run_id).info.status == "KILLED"

    again = MLflowRecorder(store, "resumed", run_id=first.run_id)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    again.log_params({"seed": 2, "device": "cpu"})
    again.log_points([("loss", 1.0, 2, 0)])
    assert client.get_run(first.run_id).data.params == {"seed": "1", "device": "cpu"}
    assert [p.step for p in client.get_metric_history(first.run_id, "loss")] == [1, 2]


def test_a_run_that_was_deleted_or_is_of_another_store_begins_anew(
    store: Settings, client: MlflowClient
) -> None:
    deleted = MLflowRecorder(store, "deleted").run_id
    client.delete_run(deleted)
    for gone in (deleted, "f00"):
        recorder = MLflowRecorder(store, "deleted", run_id=gone)
        recorder.log_points([("loss", 1.0, 2, 0)])
        assert client.get_run(recorder.run_id).data.metrics == {"loss": 1.0}
        client.delete_run(recorder.run_id)


def test_two_processes_may_make_the_store_at_once(settings: Settings) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        begun = [pool.submit(_begin, settings, name) for name in ("a", "b")]
        ids = [one.result() for one in begun]
    assert len(set(ids)) == 2


def _begin(settings: Settings, name: str) -> str | None:
    return MLflowRecorder(settings, name).run_id


def test_a_store_that_is_no_database_is_refused_at_once(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(CatalogUnreachable, match=r"mlflow\.db"):
        MLflowRecorder(settings, "x")


def test_a_database_that_is_down_is_found_at_once_and_its_password_is_not_told() -> None:
    with socket.socket() as closed:  # bound and never listening: who asks is refused at once
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}/name?user=u&password=s3cret"
        down = Settings(tracking_uri=f"postgresql+psycopg://{place}")
        began = time.monotonic()
        with pytest.raises(TrackingDown, match="password=\\*\\*\\*") as caught:
            MLflowRecorder(down, "x")
    assert time.monotonic() - began < 30  # MLflow by itself would try for 100 s
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (requests.ConnectionError("nobody there"), TrackingDown),
        (OperationalError("SELECT 1", None, Exception("server closed")), TrackingDown),
        (ProgrammingError("SELECT 1", None, Exception("no such table")), CatalogUnreachable),
        (PermissionError(13, "Permission denied", "mlartifacts"), CatalogUnreachable),
    ],
)
def test_only_a_server_that_does_not_answer_is_down(error: Exception, fault: type) -> None:
    with pytest.raises(CatalogUnreachable) as caught, answering("postgresql://there/mlflow"):
        raise error
    assert type(caught.value) is fault


def test_a_folder_of_artifacts_that_cannot_be_written_is_a_refusal(
    store: Settings, client: MlflowClient
) -> None:
    recorder = MLflowRecorder(store, "unwritable")
    place = Path(urlsplit(client.get_run(recorder.run_id).info.artifact_uri).path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.joinpath("artifacts").write_text("a file")
    with pytest.raises(CatalogUnreachable, match="artifacts"):
        recorder.log_text("x", "note.txt")


def test_a_home_that_is_a_file_is_named(settings: Settings) -> None:
    settings.home.write_text("")
    with pytest.raises(NotWritable, match=str(settings.home)):
        MLflowRecorder(settings, "x")


def test_mlflow_and_alembic_are_quiet(store: Settings) -> None:
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.INFO)
    assert not logging.getLogger("alembic.runtime.migration").isEnabledFor(logging.INFO)
