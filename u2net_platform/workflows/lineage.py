"""What weights have learned from: the cases of the run that made them, and of those before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord

Cases = Mapping[str, Set[str]]


def learned_cases(catalog: Catalog, versions: Iterable[VersionRecord]) -> Cases:
    """By domain, the training cases of these versions' runs, of the runs that those began with,
    and so on. A run that came in a bundle does not say which cases it had."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    waiting, seen = [one.run_id for one in versions], set[str]()
    while waiting:
        run = catalog.runs.get(waiting.pop())
        if run.id in seen:
            continue
        seen.add(run.id)
        for domain, one in run.fingerprints.items():
            found[domain].update(one.get("split", {}).get("training", ()))
        if run.base_version is not None:
            waiting.append(catalog.find(run.base_version).run_id)
    return found
