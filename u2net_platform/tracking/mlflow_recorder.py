"""Runs in MLflow: by default an SQLite store and a folder of artifacts below the home."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from u2net_platform.errors import CatalogUnreachable
from u2net_platform.files import storage_errors
from u2net_platform.settings import Settings
from u2net_platform.tracking.recorder import Outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "u2net"
RECIPE_FILE = "recipe.json"
# What every MLflow store takes: mlflow.utils.validation.
LONGEST_VALUE = 6000
PARAMS_PER_BATCH = 100
STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflowRecorder:
    """A run in MLflow. With `run_id` the run of that id goes on; else a new one of `name` begins.

    Raises:
        CatalogUnreachable: the store does not answer, is damaged, or has no such run.
        NotWritable: its folder cannot be written.
    """

    def __init__(self, settings: Settings, name: str, run_id: str | None = None) -> None:
        self._uri = settings.mlflow_uri
        _check_sqlite(self._uri)
        with _answering(self._uri):
            self._client = _client(self._uri)
            if run_id is None:
                experiment = _experiment(self._client, settings)
                run_id = self._client.create_run(experiment, run_name=name).info.run_id
            else:
                self._client.update_run(run_id, status="RUNNING")
        self.run_id: str | None = run_id
        self._id: str = run_id

    def log_params(self, params: dict[str, Any]) -> None:
        """Note parameters; those that the run has already stay as they are.

        Where a value is longer than MLflow takes, all of them go to `recipe.json` as well.
        """
        from mlflow.entities import Param

        with _answering(self._uri):
            known = self._client.get_run(self._id).data.params
            texts = {key: str(value) for key, value in params.items() if key not in known}
            short = [Param(key, text) for key, text in texts.items() if len(text) <= LONGEST_VALUE]
            for start in range(0, len(short), PARAMS_PER_BATCH):
                batch = short[start : start + PARAMS_PER_BATCH]
                self._client.log_batch(self._id, params=batch)
            if len(short) < len(texts):
                self._client.log_dict(self._id, params, RECIPE_FILE)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Add one point to each of these curves."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [Metric(key, float(value), now_ms, step) for key, value in metrics.items()]
        with _answering(self._uri):
            self._client.log_batch(self._id, metrics=points)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact of this name."""
        with _answering(self._uri):
            self._client.log_text(self._id, text, name)

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file."""
        with _answering(self._uri):
            self._client.log_artifact(self._id, str(path))

    def finish(self, status: Outcome) -> None:
        """Say how the run ended."""
        with _answering(self._uri):
            self._client.set_terminated(self._id, STATUS[status])


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    # Both tell at length, on stderr, of each table that they make.
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return MlflowClient(uri)


def _experiment(client: MlflowClient, settings: Settings) -> str:
    """The id of the platform's experiment, made where there is none yet."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # A server keeps artifacts where it was told to; a database has no place of its own.
        served = urlsplit(settings.mlflow_uri).scheme in ("http", "https")
        artifacts = None if served else (settings.home.resolve() / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(EXPERIMENT, artifacts))
        except MlflowException:
            # Another process was quicker, or the store is at fault: then this raises again.
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def _check_sqlite(uri: str) -> None:
    """Find a store at fault at once: MLflow would try again and again, for most of an hour."""
    if not uri.startswith("sqlite:///"):
        return
    file = Path(uri.removeprefix("sqlite:///"))
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise CatalogUnreachable(
            f"The MLflow store {file} cannot be opened: {error}",
            "Move the file away, and a new one is made; or name another: U2NET_TRACKING_URI.",
        ) from error


@contextmanager
def _answering(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise CatalogUnreachable(
            f"MLflow at {_without_password(uri)} refuses: {error.message}",
            "Check U2NET_TRACKING_URI, and that its server is up.",
        ) from error


def _without_password(uri: str) -> str:
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri
