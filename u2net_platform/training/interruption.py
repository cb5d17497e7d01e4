"""Signals that stop a run, noted instead of dying in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stopped:
    """By which signal, "" for none."""

    name: str = ""


@contextmanager
def signals_noted() -> Iterator[Stopped]:
    """Note SIGINT and SIGTERM; and SIGHUP, which comes when a connection breaks, unless it is
    ignored, as by nohup."""
    stopped = Stopped()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # only the main thread is told of signals
        return

    def note(number: int, _: FrameType | None) -> None:
        stopped.name = signal.Signals(number).name

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
