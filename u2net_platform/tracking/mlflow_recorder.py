"""Runs in MLflow: by default an SQLite store and a folder of artifacts below the home."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from u2net_platform.errors import CatalogUnreachable
from u2net_platform.files import exclusive, storage_errors
from u2net_platform.settings import Settings, without_password
from u2net_platform.tracking.recorder import Outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "u2net"
RUN_TAG = "u2net.run"  # the run's id in the catalog
RECIPE_FILE = "recipe.json"
# What every MLflow store takes: mlflow.utils.validation.
REFUSED_IN_NAMES = re.compile(r"[^\w. :-]")  # of parts of keys, which / joins
LONGEST_VALUE = 6000
PARAMS_PER_BATCH = 100
POINTS_PER_BATCH = 1000
# MLflow by itself waits 120 s for an answer, 8 times, and training stands still meanwhile.
# And it writes links on stdout, where a command's result is.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
CONNECT_TIMEOUT_S = 10
STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


Point = tuple[str, float, int, int]  # curve, value, step, time in ms since 1970


class TrackingDown(CatalogUnreachable):
    """The tracking server does not answer now; what it was to be told may be sent later."""

    @property
    def error_code(self) -> str:
        return CatalogUnreachable.__name__


class MLflowRecorder:
    """A run in MLflow: that of `name`, else that of `run_id`; a new one where there is neither.

    Whatever is told a second time changes nothing, so that all may be sent again when it is
    unknown what has arrived: a curve takes only steps that lie after its last one.

    Raises:
        TrackingDown: the server does not answer.
        CatalogUnreachable: the store refuses, or is damaged.
        NotWritable: its folder cannot be written.
    """

    def __init__(self, settings: Settings, name: str, run_id: str | None = None) -> None:
        self._uri = settings.mlflow_uri
        with answering(self._uri):
            self._client = client_of(self._uri)
            found = find_run(self._client, name, run_id)
            if found is None:
                found = new_run(self._client, settings, name)
            else:
                self._client.update_run(found, status="RUNNING")
        self.run_id: str | None = found
        self._id: str = found
        self._last: dict[str, int] = {}  # by curve, the step of its last point

    def log_params(self, params: dict[str, Any]) -> None:
        """Note parameters; those that the run has already stay as they are.

        Where a value is longer than MLflow takes, all of them go to `recipe.json` as well.
        """
        from mlflow.entities import Param

        with answering(self._uri):
            known = self._client.get_run(self._id).data.params
            texts = {key: str(value) for key, value in params.items() if key not in known}
            short = [Param(key, text) for key, text in texts.items() if len(text) <= LONGEST_VALUE]
            for start in range(0, len(short), PARAMS_PER_BATCH):
                batch = short[start : start + PARAMS_PER_BATCH]
                self._client.log_batch(self._id, params=batch)
            if len(short) < len(texts):
                self._client.log_dict(self._id, params, RECIPE_FILE)

    def log_points(self, points: Sequence[Point]) -> None:
        """Add points to curves, in their order."""
        from mlflow.entities import Metric

        fresh = []
        for key, value, step, time_ms in points:
            if step > self._last_step(key):
                fresh.append(Metric(key, value, time_ms, step))
                self._last[key] = step
        try:
            with answering(self._uri):
                for start in range(0, len(fresh), POINTS_PER_BATCH):
                    batch = fresh[start : start + POINTS_PER_BATCH]
                    self._client.log_batch(self._id, metrics=batch)
        except BaseException:
            self._last.clear()  # what has arrived is unknown: it is asked for next time
            raise

    def _last_step(self, key: str) -> int:
        if key not in self._last:
            with answering(self._uri):
                history = self._client.get_metric_history(self._id, key)
            self._last[key] = max((point.step for point in history), default=-1)
        return self._last[key]

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact of this name."""
        with answering(self._uri):
            self._client.log_text(self._id, text, name)

    def finish(self, status: Outcome) -> None:
        """Say how the run ended."""
        with answering(self._uri):
            self._client.set_terminated(self._id, STATUS[status])


def client_of(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    # Both tell at length, on stderr, of each table that they make.
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not uri.startswith("sqlite:///"):
        _check_database(uri)
        return MlflowClient(uri)
    file = Path(unquote(uri.removeprefix("sqlite:///")))
    _check_sqlite(file)
    # Two that make a store's tables at once spoil each other's.
    with exclusive(file.with_name(f"{file.name}.lock"), wait=True):
        return MlflowClient(uri)


def find_run(client: MlflowClient, name: str, run_id: str | None = None) -> str | None:
    """The id of the run that carries the name of a run of the catalog, else `run_id`; None if such
    a run was never made, was deleted, or is in a store that was moved away."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        wanted = f"tags.`{RUN_TAG}` = '{name}'"
        found = client.search_runs([experiment.experiment_id], wanted, max_results=1)
        if found:
            return str(found[0].info.run_id)
    return run_id if run_id and _is_active(client, run_id) else None


def _is_active(client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def new_run(client: MlflowClient, settings: Settings, name: str) -> str:
    """Begin a run for one of the catalog; returns its id."""
    experiment = _experiment(client, settings)
    run = client.create_run(experiment, run_name=name, tags={RUN_TAG: name})
    return str(run.info.run_id)


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


def _check_sqlite(file: Path) -> None:
    """Find a store at fault at once: MLflow would try again and again, for most of an hour."""
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


def _check_database(uri: str) -> None:
    """Find a database that is down at once: MLflow would try again for 100 s."""
    from sqlalchemy import NullPool, create_engine

    if urlsplit(uri).scheme.partition("+")[0] in ("postgresql", "mysql"):
        limit = {"connect_timeout": CONNECT_TIMEOUT_S}
        try:
            create_engine(uri, connect_args=limit, poolclass=NullPool).connect().close()
        except ImportError as error:
            raise CatalogUnreachable(
                f"MLflow at {without_password(uri)} cannot be used: {error}",
                "Correct U2NET_TRACKING_URI, or install the driver that it names.",
            ) from error


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into this project's, and those that it lets through: of databases, of
    files, and of sending them.

    Raises:
        TrackingDown: a server does not answer, or not now.
        CatalogUnreachable: the store refuses.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        served = not uri.startswith("sqlite:")
        fault = TrackingDown if served and _may_pass(error) else CatalogUnreachable
        reason = " ".join(f"MLflow at {uri} refuses: {error}".split())
        raise fault(
            reason.replace(uri, without_password(uri)),
            "Check U2NET_TRACKING_URI, and that its server is up.",
        ) from error


def _may_pass(error: Exception) -> bool:
    """Whether it is worth asking again later: no answer, a fault of the server, too many asked."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import InterfaceError, OperationalError

    if isinstance(error, MlflowException):
        status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
    elif isinstance(error, RequestException):
        status = 500 if error.response is None else error.response.status_code
    else:
        return isinstance(error, InterfaceError | OperationalError)
    return status >= 500 or status == 429
