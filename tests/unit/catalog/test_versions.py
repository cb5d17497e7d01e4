from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion
from u2net_platform.errors import Conflict, UnknownDomain, UnknownRecord

Build = Callable[..., NewVersion]
PROCESSES, PUBLISHES = 4, 10


def publish_many(url: str, versions: list[NewVersion]) -> None:
    catalog = Catalog.open(url)
    for version in versions:
        catalog.versions.publish(version)


def test_a_version_is_read_back_as_it_was_published(trained: Catalog, new_version: Build) -> None:
    published = trained.versions.publish(new_version(metrics={"dice": 0.9}))
    read = trained.versions.get("heart", 1)
    assert read == published
    assert (read.reference, read.metrics) == ("heart:1", {"dice": 0.9})
    assert read.plan == {"patch_zyx": [80, 192, 128]}
    assert read.backbone_architecture == {"widths": [16, 32]}
    assert timedelta(0) <= datetime.now(UTC) - read.created_at < timedelta(minutes=1)


def test_numbers_count_up_in_each_domain_by_itself(trained: Catalog, new_version: Build) -> None:
    names = ["heart", "liver", "heart", "liver", "heart"]
    numbers = [trained.versions.publish(new_version(domain=name)).number for name in names]
    assert numbers == [1, 1, 2, 2, 3]
    assert trained.versions.get("heart").number == 3
    assert [v.reference for v in trained.versions.list("liver")] == ["liver:1", "liver:2"]
    assert [v.reference for v in trained.versions.list()][:2] == ["heart:1", "heart:2"]


def test_versions_that_share_a_backbone_are_found_by_it(
    trained: Catalog, new_version: Build
) -> None:
    for domain, backbone in [("heart", "b"), ("liver", "b"), ("heart", "c")]:
        trained.versions.publish(new_version(domain=domain, backbone_digest=backbone * 64))
    found = trained.versions.by_backbone("b" * 64)
    assert [version.reference for version in found] == ["heart:1", "liver:1"]


def test_the_same_weights_are_never_two_networks(trained: Catalog, new_version: Build) -> None:
    # Backbones of `lean` and `compact` have the same shapes: a digest does not tell them apart.
    trained.versions.publish(new_version())
    trained.versions.publish(new_version(backbone_architecture={"widths": [16, 32], "later": 1}))
    with pytest.raises(Conflict, match=r"widths \[16, 32\], not \[8\]"):
        trained.versions.publish(new_version(backbone_architecture={"widths": [8]}))
    assert len(trained.versions.list("heart")) == 2


def test_equal_specs_plans_and_backbones_are_stored_once(
    trained: Catalog, new_version: Build, url: str
) -> None:
    for _ in range(3):
        trained.versions.publish(new_version())
    trained.versions.publish(new_version(plan={"patch_zyx": [8, 8, 8]}))
    with create_engine(url).connect() as connection:
        counts = [
            connection.execute(text(f"SELECT count(*) FROM u2net_{table}")).scalar()
            for table in ("versions", "specs", "plans", "backbones")
        ]
    assert counts == [4, 2, 2, 1]


def test_metrics_are_added_to_those_there(trained: Catalog, new_version: Build) -> None:
    trained.versions.publish(new_version(metrics={"dice": 0.5, "steps": 10}))
    trained.versions.add_metrics("heart", 1, {"dice": 0.9, "hd95_mm": None})
    metrics = trained.versions.get("heart", 1).metrics
    assert metrics == {"dice": 0.9, "steps": 10, "hd95_mm": None}


def test_a_domain_or_run_or_number_that_is_not_there_is_named(
    trained: Catalog, new_version: Build
) -> None:
    with pytest.raises(UnknownDomain, match="spleen"):
        trained.versions.publish(new_version(domain="spleen"))
    with pytest.raises(UnknownRecord, match="run-9"):
        trained.versions.publish(new_version(run_id="run-9"))
    with pytest.raises(UnknownRecord, match="no version"):
        trained.versions.get("heart")
    with pytest.raises(UnknownRecord, match="version 4"):
        trained.versions.get("heart", 4)
    assert trained.versions.list() == []


def test_processes_that_publish_at_once_lose_nothing_and_share_no_number(
    trained: Catalog, new_version: Build, url: str
) -> None:
    # Each process brings plans and backbones that the others bring too.
    versions = [
        new_version(plan={"patch_zyx": [k, 8, 8]}, backbone_digest=f"{k:064}")
        for k in range(PUBLISHES)
    ]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=publish_many, args=(url, versions)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    numbers = [version.number for version in trained.versions.list("heart")]
    assert numbers == list(range(1, PROCESSES * PUBLISHES + 1))
