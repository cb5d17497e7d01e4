"""Bring MLflow up to what the catalog has: what runs could not log, and registered versions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.errors import CatalogUnreachable
from u2net_platform.files import is_held
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder
from u2net_platform.tracking.outbox import OUTBOX_FILE, OutboxRecorder
from u2net_platform.workflows.register import Registration, Sheet, register
from u2net_platform.workflows.request import LOCK_FILE


def send_outboxes(settings: Settings, on_note: Callable[[str], None]) -> list[str]:
    """Send what waits of every run of this home that is not running; returns their ids.

    A run that was made elsewhere, as one of a bundle, has no folder below this home's.

    Raises:
        CatalogUnreachable: MLflow is down still; nothing is lost.
    """
    sent = []
    for run in Catalog.open(settings.database_url).runs.list():
        file = settings.runs_dir / run.id / OUTBOX_FILE
        if not file.exists() or is_held(file.parent / LOCK_FILE):
            continue
        connect = partial(MLflowRecorder, settings, run.id, run.mlflow_run_id)
        if not OutboxRecorder(file, connect, on_note).send():
            raise CatalogUnreachable(
                f"{run.id} has still to be told to MLflow", "Repeat it once its server is up."
            )
        sent.append(run.id)
    return sent


def register_all(
    settings: Settings, on_done: Callable[[str], None], sheet: Sheet | None = None
) -> Registration:
    """Register the versions of all domains, as `register`."""
    catalog = Catalog.open(settings.database_url)
    return register(settings, [one.name for one in catalog.domains.list()], on_done, sheet)
