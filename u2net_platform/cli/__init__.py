"""The command line `u2net`: data on stdout, talk on stderr, one exit code per family of faults."""

from __future__ import annotations

import os

# Read by typer when it is imported: plain help pages are quicker, and rich's markup would show
# in them as stray backslashes.
os.environ.setdefault("TYPER_USE_RICH", "0")


def main() -> None:
    """Run the command line with this process's arguments; ends the process."""
    from u2net_platform.cli.app import app

    app()
