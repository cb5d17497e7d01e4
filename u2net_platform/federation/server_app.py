"""What Flower runs at the coordinator. The run's configuration names a run of this platform."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.settings import Settings

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Coordinate the run from where it is; an error ends Flower's run as failed."""
    Coordinator(Settings(), str(context.run_config["run"]), grid, print).go()
