"""The command line `u2net`: data on stdout, talk on stderr, one exit code per family of faults."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line with this process's arguments; ends the process."""
    from u2net_platform.cli.app import app

    # As Ctrl-C: exit code 130, and temporary files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    app()
