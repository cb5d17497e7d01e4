"""Main memory: what is free, and what this process holds."""

from __future__ import annotations

from pathlib import Path


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
