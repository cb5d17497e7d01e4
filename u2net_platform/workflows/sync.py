"""Bring MLflow up to what the catalog has: what runs could not log, and registered versions."""

from __future__ import annotations

from collections.abc import Callable

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.errors import CatalogUnreachable, RunBusy, U2NetError
from u2net_platform.files import exclusive
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder, TrackingDown
from u2net_platform.tracking.outbox import OUTBOX_FILE, send_outbox
from u2net_platform.workflows.register import Registration, Sheet, register
from u2net_platform.workflows.request import LOCK_FILE


def send_outboxes(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Send what waits of every run of this home that is not running; returns the ids of those that
    were sent, and of those that MLflow refuses, with the reason.

    A run that was made elsewhere, as one of a bundle, has no folder below this home's.

    Raises:
        CatalogUnreachable: MLflow is down still; nothing is lost.
    """
    sent: list[str] = []
    refused: dict[str, str] = {}
    for run in Catalog.open(settings.database_url).runs.list():
        file = settings.runs_dir / run.id / OUTBOX_FILE
        if not file.exists():
            continue
        try:
            with exclusive(file.parent / LOCK_FILE):  # or a run that goes on adds to it meanwhile
                send_outbox(file, MLflowRecorder(settings, run.id, run.mlflow_run_id))
            sent.append(run.id)
        except RunBusy:
            continue  # it sends its own
        except TrackingDown as error:
            raise CatalogUnreachable(
                f"{run.id} has still to be told to MLflow: {error.message}",
                "Repeat it once its server is up.",
            ) from error
        except U2NetError as error:
            refused[run.id] = error.message
    return sent, refused


def register_all(
    settings: Settings, on_done: Callable[[str], None], sheet: Sheet | None = None
) -> Registration:
    """Register the versions of all domains, as `register`."""
    catalog = Catalog.open(settings.database_url)
    return register(settings, [one.name for one in catalog.domains.list()], on_done, sheet)
