"""What a tracking server that is down has yet to be told, in a file of the run's folder.

Each thing to log is a line of JSON. It is written down first, then all that waits is sent in order,
then the file goes. So a process that is killed, or a server that falls silent, at whatever moment
loses nothing; and as `MLflowRecorder` passes over what has arrived, nothing is there twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from u2net_platform.errors import CatalogUnreachable
from u2net_platform.files import append_line, storage_errors
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder, TrackingDown
from u2net_platform.tracking.recorder import Outcome

OUTBOX_FILE = "outbox.jsonl"
REST_SECONDS = 30.0  # between attempts while the server is down
REST_FACTOR = 10  # and this many times as long as the last one took, so that training goes on
SYNC_HINT = "Send it once the server is up: u2net model sync"

Entry = dict[str, Any]


class OutboxRecorder:
    """A recorder of one run that waits where MLflow does not answer, or refuses what it is told.

    file: the run's outbox; what an earlier process left there is sent first.
    connect: begins the run in MLflow, or goes on with it.
    on_note: is told once when MLflow falls silent, and at the end if something still waits.

    Raises:
        CatalogUnreachable: the store refuses or is damaged, now: later it costs no run its end.
        NotWritable, DiskFull: the outbox cannot be written.
    """

    def __init__(
        self, file: Path, connect: Callable[[], MLflowRecorder], on_note: Callable[[str], None]
    ) -> None:
        self._file, self._connect, self._on_note = file, connect, on_note
        self._recorder: MLflowRecorder | None = None
        self._next_try = 0.0
        self._told = False
        self._attempt(self._connected, TrackingDown)

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None as long as the server has not answered."""
        return self._recorder.run_id if self._recorder else None

    @property
    def waiting(self) -> bool:
        """Whether something has yet to be sent."""
        return self._file.exists()

    def log_params(self, params: dict[str, Any]) -> None:
        """Note parameters; those that the run has already stay as they are."""
        self._tell({"call": "log_params", "params": params})

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Add one point to each of these curves, at this moment."""
        now_ms = int(time.time() * 1000)
        points = [(key, float(value), step, now_ms) for key, value in metrics.items()]
        self._tell({"call": "log_points", "points": points})

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact of this name."""
        self._tell({"call": "log_text", "text": text, "name": name})

    def finish(self, status: Outcome) -> None:
        """Say how the run ended."""
        self._next_try = 0.0
        self._tell({"call": "finish", "status": status})
        if self.waiting:
            self._on_note(f"MLflow was not told everything; {self._file} keeps it. {SYNC_HINT}")

    def send(self) -> bool:
        """Send all that waits, in order; False if the server is down still, or refuses."""
        return self._attempt(lambda: send_outbox(self._file, self._connected()), CatalogUnreachable)

    def _tell(self, entry: Entry) -> None:
        with storage_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        # Where the server answers, it is gone in a moment.
        append_line(self._file, json.dumps(entry, default=str), sync=self._next_try > 0)
        if time.monotonic() >= self._next_try:
            self.send()

    def _attempt(self, work: Callable[[], object], passing: type[CatalogUnreachable]) -> bool:
        began = time.monotonic()
        try:
            work()
        except passing as error:
            if not self._told:
                self._on_note(f"{error.message}. What it was to log is kept, and sent later.")
            self._told = True
            now = time.monotonic()
            self._next_try = now + max(REST_SECONDS, REST_FACTOR * (now - began))
            return False
        self._next_try, self._told = 0.0, False
        return True

    def _connected(self) -> MLflowRecorder:
        if self._recorder is None:
            self._recorder = self._connect()
        return self._recorder


def send_outbox(file: Path, recorder: MLflowRecorder) -> None:
    """Send all that waits in a file, in order, and remove it.

    Raises:
        TrackingDown, CatalogUnreachable: all of it is kept.
        NotWritable: it was sent, and cannot be removed.
    """
    entries = list(_entries(file))
    for call, group in groupby(entries, key=lambda entry: entry["call"]):
        same = list(group)
        if call == "log_points":
            recorder.log_points([tuple(point) for one in same for point in one["points"]])
        elif call != "finish":
            for one in same:
                _send_one(recorder, call, one)
        elif same[-1] is entries[-1]:  # else the run was resumed after that end
            recorder.finish(same[-1]["status"])
    with storage_errors(file):
        file.unlink(missing_ok=True)


def _send_one(recorder: MLflowRecorder, call: str, entry: Entry) -> None:
    if call == "log_params":
        recorder.log_params(entry["params"])
    else:
        recorder.log_text(entry["text"], entry["name"])


def _entries(file: Path) -> Iterator[Entry]:
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # blank, or torn by a power cut
