"""What a run writes down as it goes, whoever keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from u2net_platform.errors import U2NetError

Outcome = Literal["completed", "interrupted", "failed"]


class Recorder(Protocol):
    """The diary of one run. `run_id` is its name with whoever keeps it."""

    @property
    def run_id(self) -> str | None: ...

    def log_params(self, params: dict[str, Any]) -> None:
        """Note what was chosen for the run; what is noted already stays."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Add one point to each of these curves."""

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as a file of this name."""

    def finish(self, status: Outcome) -> None:
        """Say how the run ended."""


class NullRecorder:
    """Keeps nothing."""

    run_id: str | None = None

    def log_params(self, params: dict[str, Any]) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...

    def log_text(self, text: str, name: str) -> None: ...

    def finish(self, status: Outcome) -> None: ...


def report_end(tell: Callable[[], object], on_note: Callable[[str], None]) -> None:
    """Tell how a run has ended; that this fails is no other end of it, and a note."""
    try:
        tell()
    except U2NetError as error:
        on_note(error.message)
