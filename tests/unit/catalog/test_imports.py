from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord

SCORES = {"test": {"overall": {"dice": 0.9}, "classes": {}}}


def test_taken_in_by_many_at_once_it_is_one_version_of_one_run(
    catalog: Catalog,
    url: str,
    new_run: Callable[..., RunRecord],
    new_version: Callable[..., NewVersion],
) -> None:
    run = new_run(domains=("heart", "liver"))
    versions = [new_version(domain=name) for name in ("heart", "liver") * 4]

    def take(version: NewVersion) -> tuple[str, bool]:
        taken = Catalog.open(url).imports.take(version, run)
        return taken.record.reference, taken.new

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(take, versions))
    assert sorted(name for name, new in done if new) == ["heart:1", "liver:1"]
    assert {name for name, _ in done} == {"heart:1", "liver:1"}


def test_metrics_that_a_version_has_stay_and_those_that_it_lacks_come(
    catalog: Catalog, new_run: Callable[..., RunRecord], new_version: Callable[..., NewVersion]
) -> None:
    first = {"validation": {"dice": 0.8}, "bundle": {"sha256": "1"}}
    assert catalog.imports.take(new_version(metrics=first), new_run()).new
    again = new_version(metrics={"validation": {"dice": 0.7}, "bundle": {"sha256": "2"}} | SCORES)
    taken = catalog.imports.take(again, new_run())
    assert (taken.new, taken.added, taken.kept) == (False, ("test",), ("validation",))
    assert taken.record.metrics == first | SCORES
