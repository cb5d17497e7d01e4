"""Main memory: what is free, what this process holds, and what it keeps for the next volume."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
CONTROL_GROUPS = Path("/sys/fs/cgroup")
LARGEST_THRESHOLD = 32 << 20  # bytes; glibc takes no more


def free_bytes() -> int:
    """Memory that this process may still take, of the machine and of its control group."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    entries = dict(line.split(":") for line in lines)
    free = int(entries["MemAvailable"].split()[0]) << 10
    return int(min([free, *map(_free_in, _control_groups())]))


def _control_groups() -> list[Path]:
    """The control group (version 2) of this process, and those that it lies in."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    path = CONTROL_GROUPS / own
    return [one for one in (path, *path.parents) if one.is_relative_to(CONTROL_GROUPS)]


def _free_in(group: Path) -> float:
    """What a control group may still take; a file's pages that nobody uses are given back."""
    try:
        limit = int((group / "memory.max").read_text("ascii"))
        used = int((group / "memory.current").read_text("ascii"))
        counts = dict(
            line.split() for line in (group / "memory.stat").read_text("ascii").splitlines()
        )
        return max(0, limit - used + int(counts["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no group, or one without a limit: "max"
        return math.inf


def held_bytes() -> int:
    """What this process holds now."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    entries = dict(line.split(":", 1) for line in lines)
    return int(entries["VmRSS"].split()[0]) << 10


def keep_freed_memory(of_any_size: bool = False) -> None:
    """Let glibc keep freed blocks of up to 32 MiB: every patch asks for the same ones again.

    By default they go back to the system, which then clears every page anew. Larger ones, as of
    whole volumes, are kept with `of_any_size` only: what is kept counts as held, until
    `give_back_freed_memory`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)
        if of_any_size:
            mallopt(M_MMAP_MAX, 0)


def give_back_freed_memory() -> None:
    """Let go of all that was kept, so that what this process holds is what it uses."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
