"""What a site writes down for itself: what left it, and what went wrong."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from u2net_platform.errors import StorageError
from u2net_platform.files import append_line

AUDIT_FILE = "audit.jsonl"
FAULTS_FILE = "faults.log"


def audit(directory: Path, what: str, details: Mapping[str, Any]) -> None:
    """Note what leaves the site, on disk before it does; lines are only added.

    Raises:
        DiskFull, NotWritable: it cannot be noted, and so must not leave.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": time, "what": what, **details}, sort_keys=True)
    append_line(directory / AUDIT_FILE, line)


def keep_fault(directory: Path, error: BaseException) -> None:
    """Keep the whole story of an error at the site, as none of its text may leave."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": type(error).__name__,
        "text": "".join(traceback.format_exception(error)),
    }
    try:
        append_line(directory / FAULTS_FILE, json.dumps(entry))
    except StorageError:
        return  # a full disk: the coordinator hears of the first fault all the same
