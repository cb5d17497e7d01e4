"""A real MLflow store on SQLite, behind a server that can be switched off between any two calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from u2net_platform.errors import CatalogUnreachable, NotWritable
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder, TrackingDown, find_run
from u2net_platform.tracking.outbox import OutboxRecorder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("mlflow"))
    MLflowRecorder(settings, "first").finish("completed")
    return settings


class Server:
    """Hands out recorders that fail while it is down; after `calls_left` calls it goes down."""

    def __init__(self, store: Settings, name: str) -> None:
        self.store, self.name = store, name
        self.up, self.calls_left, self.answers_lost = True, 10**9, False

    def connect(self) -> MLflowRecorder:
        self.check()
        recorder = MLflowRecorder(self.store, self.name)
        for name in ("log_params", "log_points", "log_text", "finish"):
            setattr(recorder, name, self.guarded(getattr(recorder, name)))
        return recorder

    def guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            if self.answers_lost:
                call(*arguments)
                self.up = False
            self.check()
            call(*arguments)

        return run

    def check(self) -> None:
        self.calls_left -= 1
        if not self.up or self.calls_left < 0:
            self.up = False
            raise TrackingDown("nobody answers", "Start it.")


@pytest.fixture
def server(store: Settings, tmp_path: Path) -> Server:
    return Server(store, tmp_path.name)


@pytest.fixture
def client(store: Settings) -> Iterator[MlflowClient]:
    return MlflowClient(store.mlflow_uri)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "outbox.jsonl"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def begin(server: Server, file: Path, notes: list[str]) -> Callable[[], OutboxRecorder]:
    """What a process does that starts the run or goes on with it."""
    return lambda: OutboxRecorder(file, server.connect, notes.append)


def curve(client: MlflowClient, server: Server, key: str = "loss") -> list[tuple[int, float]]:
    run_id = find_run(client, server.name)
    assert run_id is not None
    return [(point.step, point.value) for point in client.get_metric_history(run_id, key)]


def test_while_the_server_answers_nothing_waits(server, begin, client, file, notes) -> None:
    recorder = begin()
    recorder.log_metrics({"loss": 2.0}, 1)
    assert curve(client, server) == [(1, 2.0)]
    recorder.finish("completed")
    assert not file.exists() and not notes
    assert client.get_run(recorder.run_id).info.status == "FINISHED"


def test_points_of_an_outage_arrive_in_order_with_their_own_times(
    server, begin, client, file, notes
) -> None:
    recorder = begin()
    recorder.log_metrics({"loss": 3.0}, 1)
    server.up = False
    for step in (2, 3, 4):
        recorder.log_metrics({"loss": 4.0 - step}, step)
    assert recorder.waiting and len(notes) == 1
    server.up = True
    assert recorder.send()
    recorder.log_metrics({"loss": -1.0}, 5)
    assert curve(client, server) == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.0), (5, -1.0)]
    times = [p.timestamp for p in client.get_metric_history(recorder.run_id, "loss")]
    assert times == sorted(times)
    assert not file.exists()


def test_a_server_that_is_down_is_not_asked_at_every_point(server, begin) -> None:
    recorder = begin()
    server.up = False
    for step in range(50):
        recorder.log_metrics({"loss": 1.0}, step)
    assert server.calls_left == 10**9 - 2  # to connect, and once in vain


def test_a_run_that_begins_and_ends_while_it_is_down_is_sent_later(
    server, begin, client, tmp_path, notes
) -> None:
    server.up = False
    recorder = begin()
    assert recorder.run_id is None
    recorder.log_params({"seed": 7})
    recorder.log_text("{}", "heart/spec.json")
    recorder.log_metrics({"loss": 2.0}, 1)
    recorder.finish("completed")
    assert "u2net model sync" in notes[-1]

    server.up = True
    later = begin()
    assert later.send() and not later.waiting
    run = client.get_run(later.run_id)
    assert run.data.params == {"seed": "7"} and run.info.status == "FINISHED"
    assert curve(client, server) == [(1, 2.0)]
    assert {one.path for one in client.list_artifacts(later.run_id)} == {"heart"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == []


@pytest.mark.parametrize("calls", range(1, 6))
def test_wherever_sending_breaks_off_every_point_is_there_once(
    server, begin, client, calls
) -> None:
    server.up = False
    recorder = begin()
    recorder.log_metrics({"loss": 1.0, "dice": 0.1}, 1)
    recorder.log_params({"seed": 1})
    recorder.log_metrics({"loss": 2.0}, 2)
    recorder.log_text("x", "x.txt")
    recorder.log_metrics({"loss": 3.0}, 3)
    server.up, server.calls_left = True, calls
    assert not recorder.send()
    server.up, server.calls_left = True, 100
    assert begin().send()  # another process
    assert curve(client, server) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert curve(client, server, "dice") == [(1, 0.1)]


def test_a_point_whose_receipt_was_lost_is_not_there_twice(server, begin, client) -> None:
    recorder = begin()
    recorder.log_metrics({"loss": 1.0}, 1)
    server.answers_lost = True
    recorder.log_metrics({"loss": 2.0}, 2)
    server.up, server.answers_lost = True, False
    assert recorder.waiting and begin().send()
    assert curve(client, server) == [(1, 1.0), (2, 2.0)]


def test_steps_that_a_killed_run_repeats_are_not_there_twice(server, begin, client) -> None:
    first = begin()
    first.log_metrics({"loss": 1.0}, 1)
    server.up = False
    first.log_metrics({"loss": 2.0}, 2)
    server.up = True
    again = begin()  # the checkpoint was of step 1
    again.log_metrics({"loss": 2.0}, 2)
    again.log_metrics({"loss": 3.0}, 3)
    assert curve(client, server) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_resumed_run_does_not_end_with_the_end_it_had_before(server, begin, client) -> None:
    first = begin()
    server.up = False
    first.finish("interrupted")
    server.up = True
    again = begin()
    again.log_metrics({"loss": 1.0}, 1)
    assert client.get_run(again.run_id).info.status == "RUNNING"


def test_a_line_torn_by_a_power_cut_spoils_no_other(server, begin, client, file) -> None:
    server.up = False
    recorder = begin()
    recorder.log_metrics({"loss": 1.0}, 1)
    with file.open("a") as torn:
        torn.write('\n{"call": "log_points", "poi')
    recorder.log_metrics({"loss": 2.0}, 2)
    server.up = True
    assert recorder.send()
    assert curve(client, server) == [(1, 1.0), (2, 2.0)]


def test_not_a_number_arrives_as_such(server, begin, client) -> None:
    server.up = False
    recorder = begin()
    recorder.log_metrics({"loss": float("nan")}, 1)
    server.up = True
    assert recorder.send()
    [(step, value)] = curve(client, server)
    assert step == 1 and isnan(value)


def test_a_damaged_local_store_is_an_error_at_once(settings: Settings, file, notes) -> None:
    settings.home.mkdir()
    (settings.home / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(CatalogUnreachable, match=r"mlflow\.db"):
        OutboxRecorder(file, lambda: MLflowRecorder(settings, "x"), notes.append)


def test_what_a_store_refuses_in_mid_run_is_kept_and_sent_later(
    server, begin, client, file, notes
) -> None:
    recorder = begin()
    client.delete_run(recorder.run_id)  # as a store that is damaged or locked
    recorder.log_metrics({"loss": 2.0}, 1)
    recorder.finish("interrupted")
    assert "active" in notes[0] and "u2net model sync" in notes[-1]
    client.restore_run(recorder.run_id)
    assert recorder.send() and not file.exists()
    assert curve(client, server) == [(1, 2.0)]


def test_an_outbox_that_cannot_be_written_is_named(server, begin, file) -> None:
    recorder = begin()
    file.parent.write_text("")
    with pytest.raises(NotWritable, match="outbox"):
        recorder.log_metrics({"loss": 1.0}, 1)
