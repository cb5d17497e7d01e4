"""Remove files of weights that no version, and no round of a federation, names."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.files import storage_errors
from u2net_platform.settings import Settings

# A version's files are there before its row: what is younger may belong to one being published.
GRACE_HOURS = 24.0


@dataclass(frozen=True)
class Garbage:
    """A file that nothing names, with its size in bytes."""

    path: Path
    size: int


def collect_garbage(
    settings: Settings, dry_run: bool, grace_hours: float = GRACE_HOURS
) -> list[Garbage]:
    """Find files that no version names and nobody wrote within `grace_hours`; remove them.

    Raises:
        NotWritable: a file cannot be removed.
        CatalogUnreachable: what is named is not known, so nothing is removed.
    """
    folder = settings.weights_dir
    # The files first, the catalog after: what is published in between is named.
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    catalog = Catalog.open(settings.database_url)
    named = catalog.versions.digests_of_files() | catalog.federations.backbones()
    oldest = time.time() - grace_hours * 3600
    found = []
    for path in files:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.name.partition(".")[0] in named or stat.st_mtime > oldest:
            continue
        if not dry_run:
            with storage_errors(path):
                path.unlink(missing_ok=True)
        found.append(Garbage(path, stat.st_size))
    return found
