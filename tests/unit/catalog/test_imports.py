from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import create_engine, text

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord
from u2net_platform.errors import Conflict

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


def test_bundles_of_one_run_may_be_taken_in_at_once(
    trained: Catalog,
    url: str,
    new_run: Callable[..., RunRecord],
    new_version: Callable[..., NewVersion],
) -> None:
    start, run = Barrier(2), new_run(id="run-2", domains=("heart", "liver"))

    def take(domain: str) -> str:
        catalog = Catalog.open(url)
        start.wait()
        return catalog.imports.take(new_version(domain=domain), run).record.reference

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(take, ("heart", "liver"))) == ["heart:1", "liver:1"]


def test_metrics_that_a_version_has_stay_and_those_that_it_lacks_come(
    catalog: Catalog, new_run: Callable[..., RunRecord], new_version: Callable[..., NewVersion]
) -> None:
    first = {"validation": {"dice": 0.8}, "bundle": {"sha256": "1"}}
    run = new_run(directory="")
    assert catalog.imports.take(new_version(metrics=first), run).new
    again = new_version(metrics={"validation": {"dice": 0.7}, "bundle": {"sha256": "2"}} | SCORES)
    taken = catalog.imports.take(again, run)
    assert (taken.new, taken.added, taken.kept) == (False, ("test",), ("validation",))
    assert taken.record.metrics == first | SCORES


def test_a_version_that_was_made_here_gets_scores_from_a_trusted_bundle_alone(
    trained: Catalog, new_version: Callable[..., NewVersion]
) -> None:
    trained.versions.publish(new_version())
    run = trained.runs.get("run-1").model_copy(update={"directory": ""})
    praised = new_version(metrics={"bundle": {"sha256": "2"}} | SCORES)
    taken = trained.imports.take(praised, run)
    assert (taken.new, taken.added, taken.kept) == (False, (), ("test",))
    assert taken.record.metrics == {}
    assert trained.imports.take(praised, run, trusted=True).added == ("test",)


def test_one_from_a_trusted_signer_gets_no_scores_from_an_unsigned_bundle(
    catalog: Catalog, new_run: Callable[..., RunRecord], new_version: Callable[..., NewVersion]
) -> None:
    run = new_run(directory="")
    signed = new_version(metrics={"bundle": {"sha256": "1", "signer": "lab"}})
    assert catalog.imports.take(signed, run, trusted=True).new
    forged = new_version(metrics={"bundle": {"sha256": "2", "signer": None}} | SCORES)
    taken = catalog.imports.take(forged, run)
    assert (taken.added, taken.kept) == ((), ("test",))
    assert taken.record.metrics == signed.metrics
    assert catalog.imports.take(forged, run, trusted=True).added == ("test",)


def test_data_that_one_bundle_does_not_tell_come_with_another(
    catalog: Catalog, new_run: Callable[..., RunRecord], new_version: Callable[..., NewVersion]
) -> None:
    catalog.domains.add({"name": "liver"}, "liver", "a" * 64, "bundled")
    prints = {name: {"data_digest": name[0] * 64} for name in ("liver", "heart")}
    run = new_run(domains=("liver", "heart"), fingerprints=prints, directory="")
    partly = run.model_copy(update={"fingerprints": {"heart": prints["heart"]}})
    catalog.imports.take(new_version(domain="heart"), partly)
    catalog.imports.take(new_version(domain="liver"), run)
    assert {one.version for one in catalog.versions.that_saw("l" * 64)} == {"heart:1", "liver:1"}


def test_a_run_whose_parts_come_one_by_one_is_one_run_with_the_data_of_all(
    catalog: Catalog, new_run: Callable[..., RunRecord], new_version: Callable[..., NewVersion]
) -> None:
    prints = {name: {"data_digest": name[0] * 64} for name in ("liver", "heart")}
    run = new_run(domains=("liver", "heart"), fingerprints=prints, directory="")
    for name in ("heart", "liver"):
        catalog.imports.take(new_version(domain=name, spec={"name": name}), run)
    (here,) = catalog.runs.list()
    assert (here.domains, here.fingerprints) == (run.domains, prints)
    for data in ("l", "h"):
        found = catalog.versions.that_saw(data * 64)
        assert [(one.version, one.directly) for one in found] == [
            ("heart:1", True),
            ("liver:1", True),
        ]


def test_no_bundle_adds_a_domain_to_a_run_that_was_made_here(
    trained: Catalog, new_run: Callable[..., RunRecord], new_version: Callable[..., NewVersion]
) -> None:
    made = trained.runs.get("run-1")
    foreign = made.model_copy(update={"domains": ("liver", "heart", "spleen"), "directory": ""})
    taken = trained.imports.take(new_version(domain="spleen"), foreign)
    assert taken.record.run_id.startswith("run-1-")
    taken = trained.imports.take(new_version(domain="heart"), foreign)
    assert taken.record.run_id == "run-1"
    assert trained.runs.get("run-1") == made


def test_a_version_is_never_put_to_a_run_that_is_not_its_own(
    catalog: Catalog,
    url: str,
    new_run: Callable[..., RunRecord],
    new_version: Callable[..., NewVersion],
) -> None:
    catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled")
    catalog.runs.create(new_run(seed=1))
    run = new_run(seed=2)
    name = catalog.imports.take(new_version(), run).record.run_id
    other = new_version(domain_digest="e" * 64)
    assert catalog.imports.take(other, run).record.run_id == name
    with create_engine(url).begin() as connection:
        connection.execute(text("UPDATE u2net_runs SET seed = 3"))
    with pytest.raises(Conflict, match=name):
        catalog.imports.take(new_version(domain_digest="f" * 64), run)
