"""Main memory: what is free, what this process holds, and what it keeps for the next volume."""

from __future__ import annotations

import ctypes
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h
LARGEST_THRESHOLD = 32 << 20  # bytes; glibc takes no more


def free_bytes() -> int:
    """Memory that this process may still take, of the machine and of its control group."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    entries = dict(line.split(":") for line in lines)
    free = int(entries["MemAvailable"].split()[0]) << 10
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text("ascii").strip()
        used = int((group / "memory.current").read_text("ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


def held_bytes() -> int:
    """What this process holds now."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    entries = dict(line.split(":", 1) for line in lines)
    return int(entries["VmRSS"].split()[0]) << 10


def keep_freed_memory(of_any_size: bool = False) -> None:
    """Let glibc keep freed blocks of up to 32 MiB: every patch asks for the same ones again.

    By default they go back to the system, which then clears every page anew. Larger ones, as of
    whole volumes, are kept with `of_any_size` only: what is kept counts as held.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, -1)
        if of_any_size:
            mallopt(M_MMAP_MAX, 0)
