"""What a site writes down for itself: what left it, and what went wrong."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from u2net_platform.files import storage_errors

AUDIT_FILE = "audit.jsonl"
FAULTS_FILE = "faults.log"


def audit(directory: Path, what: str, details: Mapping[str, Any]) -> None:
    """Note what leaves the site, on disk before it does; lines are only added.

    Raises:
        DiskFull, NotWritable: it cannot be noted, and so must not leave.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": time, "what": what, **details}, sort_keys=True)
    file = directory / AUDIT_FILE
    with storage_errors(file), file.open("a", encoding="utf-8") as log:
        log.write(line + "\n")
        log.flush()
        os.fsync(log.fileno())


def keep_fault(directory: Path, error: BaseException) -> None:
    """Keep the whole story of an error at the site, as none of its text may leave."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": type(error).__name__,
        "text": "".join(traceback.format_exception(error)),
    }
    try:
        with (directory / FAULTS_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
    except OSError:
        return  # a full disk: the coordinator hears of the first fault all the same
