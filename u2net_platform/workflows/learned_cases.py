"""What weights have learned from: the cases of the runs that made them, and of those before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord, VersionRecord


def learned_cases(catalog: Catalog, versions: Iterable[VersionRecord]) -> Mapping[str, Set[str]]:
    """By domain, the training cases of the runs that made these versions and their backbones, of
    what those began with, and so on.

    A run that came in a bundle does not say which cases it had.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    waiting, seen = list(versions), set[str]()
    while waiting:
        for run in _made(catalog, waiting.pop()):
            if run.id in seen:
                continue
            seen.add(run.id)
            for domain, one in run.fingerprints.items():
                found[domain].update(one.get("split", {}).get("training", ()))
            begun = [run.base_version] if run.base_version else []
            waiting += map(catalog.find, [*begun, *run.starts.values()])
    return found


def _made(catalog: Catalog, version: VersionRecord) -> Iterator[RunRecord]:
    """The run of a version, and those that trained its backbone."""
    yield catalog.runs.get(version.run_id)
    for other in catalog.versions.by_backbone(version.backbone_digest):
        run = catalog.runs.get(other.run_id)
        if run.kind != "adapt":
            yield run
