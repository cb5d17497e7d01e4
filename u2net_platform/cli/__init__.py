"""The command line `u2net`: data on stdout, talk on stderr, one exit code per family of faults."""

from __future__ import annotations


def main() -> None:
    """Run the command line with this process's arguments; ends the process."""
    from u2net_platform.cli.app import app

    app()
