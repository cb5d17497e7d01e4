"""What Flower runs at the coordinator. The run's configuration names a run of this platform."""

from __future__ import annotations

from contextlib import suppress

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from u2net_platform.errors import StorageError
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.status import NOTES_FILE, keep_published
from u2net_platform.files import append_line
from u2net_platform.settings import Settings

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Coordinate the run from where it is; an error ends Flower's run as failed.

    What is said on the way, and what sites have published, lie in the run's folder as well: the
    commands that watch are other processes.
    """
    settings, run = Settings(), str(context.run_config["run"])
    directory = settings.runs_dir / run

    def note(text: str) -> None:
        print(text)  # noqa: T201  Flower keeps it for `flwr log`
        with suppress(StorageError):  # it is in Flower's log all the same
            append_line(directory / NOTES_FILE, text)

    done = Coordinator(settings, run, grid, note).go()
    keep_published(directory, done.at_sites)
