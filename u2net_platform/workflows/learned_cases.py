"""What weights have learned from: the cases of the runs that made them, and of those before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Literal

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord, VersionRecord


def learned_cases(
    catalog: Catalog,
    versions: Iterable[VersionRecord],
    parts: Sequence[Literal["training", "validation"]] = ("training",),
) -> Mapping[str, Set[str]]:
    """By domain, the training cases of the runs that made these versions, and of all that those
    build on; or those of other `parts`.

    A run that came in a bundle does not say which cases it had.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    waiting, seen = [one.run_id for one in versions], set[str]()
    while waiting:
        run = catalog.runs.get(waiting.pop())
        if run.id in seen:
            continue
        seen.add(run.id)
        for domain in run.fingerprints:
            found[domain].update(name for part in parts for name in run.cases(domain, part))
        waiting += _built_on(catalog, run)
    return found


def _built_on(catalog: Catalog, run: RunRecord) -> Iterator[str]:
    """The runs that a run builds on, as `catalog.lineage` has it."""
    backbones = {one.backbone_digest for one in catalog.versions.by_run(run.id)}
    if run.base_version:
        backbones.add(catalog.find(run.base_version).backbone_digest)
    for digest in backbones:
        makers = {one.run_id for one in catalog.versions.by_backbone(digest)}
        yield from (maker for maker in makers if catalog.runs.get(maker).kind != "adapt")
    for start in run.starts.values():
        yield catalog.find(start).run_id
