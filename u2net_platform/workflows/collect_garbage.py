"""Remove weights that nothing names, what killed processes left half-written, and prepared cases
that nobody uses."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from stat import S_ISREG

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.errors import CatalogBehind, Conflict
from u2net_platform.files import TEMPORARY, is_held, storage_errors
from u2net_platform.settings import Settings
from u2net_platform.workflows.request import LOCK_FILE, REQUEST_FILE, STATE_FILE, is_abandoned

# A version's files are there before its row: what is younger may belong to one being published.
GRACE_HOURS = 24.0
WEIGHTS = re.compile(r"[0-9a-f]{64}\.safetensors")
KEY = re.compile(r"[0-9a-f]{64}")  # of a prepared case


@dataclass(frozen=True)
class Garbage:
    """A file that nothing names, with its size in bytes."""

    path: Path
    size: int


def collect_garbage(
    settings: Settings,
    dry_run: bool,
    grace_hours: float = GRACE_HOURS,
    prepared_days: float | None = None,
) -> list[Garbage]:
    """Find what no version names, and what a killed process left half-written, both older than
    `grace_hours`; remove it. Whatever is no file or folder of ours stays, and so does what the
    home's own catalog names, where `U2NET_CATALOG_URL` is another. With `prepared_days`, also cases
    that were prepared and that no run has asked for within so many; they are prepared again where
    they are missed.

    Raises:
        NotWritable: a file cannot be removed.
        CatalogUnreachable, CatalogBehind: what is named is not known, so nothing is removed.
        Conflict: the catalog names nothing at all though there are weights, or does not have a run
            of this home, so that another does; or a run that may read prepared cases is at work.
            Nothing is removed.
    """
    # The files first, the catalog after: what is published in between is named.
    weights = sorted(settings.weights_dir.glob("*"))
    folders = settings.prepared_dir, settings.runs_dir
    left = sorted(path for folder in folders for path in folder.glob(f"*/{TEMPORARY}*"))
    catalogs = [Catalog.open(settings.database_url)]
    named = _named(catalogs[0])
    stored = [path for path in weights if WEIGHTS.fullmatch(path.name)]
    if stored and not named:
        raise Conflict(
            f"The catalog names no version, but {settings.weights_dir} has weights",
            "Set U2NET_CATALOG_URL to their catalog, or remove the folder by hand.",
        )
    if settings.catalog_url and settings.catalog_file.exists():  # of before that was set
        catalogs.append(_own_catalog(settings))
        named |= _named(catalogs[1])
    _refuse_runs_of_others(settings, catalogs)
    nameless = [path for path in stored if path.stem not in named]
    left += [path for path in weights if path.name.startswith(TEMPORARY)]
    unused = [(nameless + left, grace_hours / 24)]
    if prepared_days is not None:
        _refuse_runs_at_work(settings)
        cases = [path for path in settings.prepared_dir.glob("*/*") if KEY.fullmatch(path.name)]
        unused.append((sorted(cases), prepared_days))
    return [one for paths, days in unused for one in _removed(paths, days, dry_run)]


def _named(catalog: Catalog) -> set[str]:
    return catalog.versions.digests_of_files()


def _own_catalog(settings: Settings) -> Catalog:
    try:
        return Catalog.open(settings.model_copy(update={"catalog_url": None}).database_url)
    except CatalogBehind as error:  # its remedy is for the catalog that the environment names
        error.hint = error.hint.replace("u2net catalog", "U2NET_CATALOG_URL= u2net catalog")
        raise


def _refuse_runs_of_others(settings: Settings, catalogs: Sequence[Catalog]) -> None:
    """Where a run was begun here with another catalog, that one names weights here too."""
    known = set[str]().union(*(one.runs.ids() for one in catalogs))
    files = (settings.runs_dir.glob(f"*/{name}") for name in (REQUEST_FILE, STATE_FILE))
    for folder in sorted(file.parent for file in chain(*files)):
        if folder.name not in known and is_abandoned(settings, folder.name):
            raise Conflict(
                f"The run {folder} is of another catalog, which may name weights here as well",
                "Give each catalog a home of its own; remove the folder if no catalog has the run.",
            )


def _refuse_runs_at_work(settings: Settings) -> None:
    for lock in settings.runs_dir.glob(f"*/{LOCK_FILE}"):
        if is_held(lock):
            raise Conflict(
                f"The run {lock.parent.name} is at work, and may read prepared cases",
                "Repeat it when the run has ended, or leave --prepared-days out.",
            )


def _removed(paths: Sequence[Path], days: float, dry_run: bool) -> list[Garbage]:
    oldest = time.time() - days * 24 * 3600
    return [found for path in paths if (found := _old(path, oldest, dry_run))]


def _old(path: Path, oldest: float, dry_run: bool) -> Garbage | None:
    """What lies there, removed unless `dry_run`; None if it is young, or gone already."""
    try:
        parts = [path, *path.rglob("*")]
        stats = [part.lstat() for part in parts]
    except FileNotFoundError:
        return None
    if not max(stat.st_mtime for stat in stats) <= oldest:  # also where `grace_hours` is no number
        return None
    if not dry_run:
        with storage_errors(path):
            if path.is_dir() and not path.is_symlink():
                # Half of a prepared case has another name, should this be killed.
                shutil.rmtree(path.rename(path.with_name(f"{TEMPORARY}{path.name}")))
            else:
                path.unlink(missing_ok=True)
    return Garbage(path, sum(stat.st_size for stat in stats if S_ISREG(stat.st_mode)))
