"""Whether this machine is fit to work: one finding a line, each with its remedy."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.database import Database
from u2net_platform.domains.discovery import discover
from u2net_platform.errors import U2NetError
from u2net_platform.settings import PRODUCT, Settings

TRACKING_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow can keep runs in
GIB = 2**30
# A prepared Decathlon task takes some 10 GiB; below 1 GiB not even checkpoints have room.
LOW_DISK_GIB, NO_DISK_GIB = 10, 1
SHARED_MEMORY = Path("/dev/shm")
LOW_SHARED_GIB = 1  # containers have 64 MiB by default, a few batches of a GPU


@dataclass(frozen=True)
class Finding:
    subject: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Everything that can be found out about this machine; a check that breaks is a finding."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _disk,
        _shared_memory,
        _catalog,
        _tracking,
        _plugins,
    )
    return [
        finding
        for check in checks
        for finding in guarded(check.__name__.lstrip("_"), partial(check, settings))
    ]


def guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What a check finds; one that breaks is a finding of its subject."""
    try:
        return list(check())
    except U2NetError as error:
        return [Finding(subject, "fail", error.message, error.hint)]
    except Exception as error:  # whatever is broken here is what the user wants to read about
        reason = f"{type(error).__name__}: {error}"
        return [Finding(subject, "fail", reason, "Install the platform anew.")]


def _python(_: Settings) -> Iterator[Finding]:
    fits = (3, 11) <= sys.version_info < (3, 14)
    detail = f"{platform.python_version()}, {platform.platform()}"
    yield Finding(
        "python", "ok" if fits else "fail", detail, "" if fits else "Use Python 3.11-3.13."
    )


def _packages(_: Settings) -> Iterator[Finding]:
    try:
        lines = [line for line in requires(PRODUCT) or [] if "extra ==" not in line]
    except PackageNotFoundError:
        yield Finding("packages", "fail", f"{PRODUCT} is not installed", "Run pip install -e .")
        return
    found, missing = [], []
    for name in sorted(re.split(r"[^\w.-]", line)[0] for line in lines):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        remedy = f"Run pip install {' '.join(missing)}"
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", remedy)


def _devices(_: Settings) -> Iterator[Finding]:
    import torch

    names = [f"cpu ({torch.get_num_threads()} threads)"]
    names += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("devices", "ok", ", ".join(names))


def _disk(settings: Settings) -> Iterator[Finding]:
    home = settings.home.resolve()
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    status: Literal["ok", "warn", "fail"] = "ok"
    if free < LOW_DISK_GIB:
        status = "fail" if free < NO_DISK_GIB else "warn"
    remedy = "" if status == "ok" else "Free some space, or set U2NET_HOME to a larger disk."
    yield Finding("disk", status, f"{free:.0f} GiB free at {home}", remedy)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        yield Finding("disk", "fail", f"{folder} cannot be written", "Set U2NET_HOME elsewhere.")


def _shared_memory(_: Settings) -> Iterator[Finding]:
    """Through which processes that make batches hand them over."""
    if SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total / GIB
        low = size < LOW_SHARED_GIB
        remedy = "Train with --workers 0; a container gets more by --shm-size=2g." if low else ""
        status: Literal["ok", "warn"] = "warn" if low else "ok"
        yield Finding("shared memory", status, f"{size:.2g} GiB at {SHARED_MEMORY}", remedy)


def _catalog(settings: Settings) -> Iterator[Finding]:
    revision = Catalog.revision(settings.database_url)
    file = Database(settings.database_url).file
    if file and not (file.exists() and file.stat().st_size):
        yield Finding("catalog", "ok", f"none yet; the first command makes one at {revision.head}")
    else:
        Catalog.open(settings.database_url)  # refuses what no command works with
        yield Finding("catalog", "ok", f"revision {revision.current}, the newest")


def _tracking(settings: Settings) -> Iterator[Finding]:
    # The address alone is looked at, and not told: it may hold a password.
    parts = urlsplit(settings.mlflow_uri)
    served = parts.scheme in ("http", "https") and bool(parts.hostname)
    database = parts.scheme.partition("+")[0] in TRACKING_DATABASES and "://" in settings.mlflow_uri
    if served or database:
        yield Finding("tracking", "ok", f"MLflow by {parts.scheme}")
    else:
        yield Finding(
            "tracking",
            "fail",
            "U2NET_TRACKING_URI is no address of a server or database",
            "Write it like https://host:5000 or sqlite:////path/mlflow.db; or leave it unset.",
        )


def _plugins(settings: Settings) -> Iterator[Finding]:
    found = discover(settings)
    working = [one.name for one in found if one.plugin]
    yield Finding("plugins", "ok", ", ".join(working))
    for one in found:
        if one.fault:
            yield Finding("plugins", "warn", f"{one.name}: {one.fault.message}", one.fault.hint)
