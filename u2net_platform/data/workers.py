"""Work on many cases, in as many processes as processors and memory allow."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from math import prod
from typing import TypeVar

import joblib

from u2net_platform.data.dataset import Case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import BrokenPlugin, DataError, InvalidCases, TooLarge, WorkerEnded
from u2net_platform.imaging.grid import Spacing
from u2net_platform.imaging.volume import Header, one_thread, read_header
from u2net_platform.memory import free_bytes

Result = TypeVar("Result")
Fault = DataError | BrokenPlugin  # of a case; a hook may fail on one alone

# Measured: the peak of memory while abdominal CTs were prepared, over the process's own.
BYTES_PER_VOXEL = 24  # of the file
BYTES_PER_NEW_VOXEL = 16  # of the prepared case
BYTES_PER_PROCESS = 300 << 20
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
WORTH_PROCESSES = 1 << 30  # bytes of all cases; for less, starting processes takes longer


def for_each_case(
    plugin: DomainPlugin,
    cases: Sequence[Case],
    work: Callable[[Case], Result],
    spacing_zyx_mm: Spacing | None,
    on_case: Callable[[str], None],
) -> list[Result]:
    """`work(case)` of every case, in their order; `on_case` gets the id of each that is done.

    spacing_zyx_mm: of what is made of a case, for an estimate of the memory that it takes.

    Raises:
        InvalidCases: some are at fault; each is named with its reason, after all were tried.
    """
    results, faults = [], []
    for case, found in attempt_each_case(cases, work, spacing_zyx_mm, on_case):
        if isinstance(found, Fault):
            faults.append(f"  {case.id}: {found.error_code}: {found.message}")
        else:
            results.append(found)
    if faults:
        listing = "\n".join(faults)
        raise InvalidCases(
            f"{len(faults)} of {len(cases)} cases of {plugin.name} cannot be used:\n{listing}",
            f"Correct them, or take them out of the data set: u2net domain check {plugin.name}",
        )
    return results


def attempt_each_case(
    cases: Sequence[Case],
    work: Callable[[Case], Result],
    spacing_zyx_mm: Spacing | None,
    on_case: Callable[[str], None],
) -> Iterator[tuple[Case, Result | Fault]]:
    """As `for_each_case`, but a case at fault gives its error.

    Raises:
        WorkerEnded
    """
    if not cases:
        return
    free = free_bytes()
    needs = [_bytes_for(case, spacing_zyx_mm) for case in cases]
    attempts: Iterable[Result | Fault]
    jobs = min(joblib.cpu_count(), len(cases), max(1, free // (max(needs) + BYTES_PER_PROCESS)))
    if jobs == 1 or sum(needs) < WORTH_PROCESSES:
        attempts = (_attempt(work, *pair, free) for pair in zip(cases, needs, strict=True))
    else:
        parallel = joblib.Parallel(jobs, return_as="generator")
        alone = joblib.delayed(_attempt_alone)
        attempts = parallel(alone(work, *pair, free) for pair in zip(cases, needs, strict=True))
    try:
        for case, found in zip(cases, attempts, strict=True):
            on_case(case.id)
            yield case, found
    except BrokenProcessPool as error:
        raise WorkerEnded(
            "A process that reads cases was ended by the system, as where memory runs out",
            "Close other programs, or take a larger machine; what is prepared is kept.",
        ) from error


def belong_to_parent() -> None:
    """In a worker: leave what reaches a whole process group, as Ctrl-C does, to the parent, and end
    when that is killed. One that outlived its run would keep its memory, and the run's lock."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _attempt_alone(
    work: Callable[[Case], Result], case: Case, need: int, free: int
) -> Result | Fault:
    """In a process beside others, each of which has one processor."""
    belong_to_parent()
    one_thread()
    return _attempt(work, case, need, free)


def _attempt(work: Callable[[Case], Result], case: Case, need: int, free: int) -> Result | Fault:
    if need > free:
        return TooLarge(
            f"{case.images[0]} needs about {need / 2**30:.1f} GiB of memory to be prepared, and "
            f"{free / 2**30:.1f} GiB are free",
            "Close other programs, take a larger machine, or declare a coarser spacing.",
        )
    try:
        return work(case)
    except (DataError, BrokenPlugin) as error:
        return error


def _bytes_for(case: Case, spacing_zyx_mm: Spacing | None) -> int:
    """An estimate from the headers; 0 for files that cannot be read, which say so themselves."""
    headers = [header for path in case.images if (header := read_header(path)) is not None]
    return sum(_bytes_of(header, spacing_zyx_mm) for header in headers)


def _bytes_of(header: Header, spacing_zyx_mm: Spacing | None) -> int:
    made = 0.0
    if spacing_zyx_mm is not None:
        made = header.values * prod(header.spacing_zyx_mm) / prod(spacing_zyx_mm)
    return int(header.values * BYTES_PER_VOXEL + made * BYTES_PER_NEW_VOXEL)
