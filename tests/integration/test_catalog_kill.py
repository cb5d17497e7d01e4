"""Processes that are killed while they write the catalog: it opens, and every row has its file."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog, Revision
from u2net_platform.catalog.records import NewVersion, RunRecord, Slot
from u2net_platform.catalog.tables import HEAD_REVISION
from u2net_platform.catalog.weights import WeightStore

KILLS = 25
STORED = Path(__file__).parents[1] / "catalogs"
SLOT = Slot(domain="heart")
RUN = RunRecord(
    id="run", kind="train", mode="universal", domains=("heart",), recipe={}, seed=0, fold=0,
    device="cpu", directory="run",
)  # fmt: skip


@pytest.fixture(scope="module")
def forks() -> multiprocessing.context.ForkServerContext:
    """Processes that begin at once: what they import is loaded before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "alembic.command", "alembic.config"])
    return context


def publish_and_deploy(home: Path, started: float) -> None:
    """Publish a version and deploy it, again and again."""
    catalog, store = Catalog.open(f"sqlite:///{home}/catalog.db"), WeightStore(home / "weights")
    for k in range(1000):
        tensors = {"weight": torch.full((64, 64), started + k)}
        version = NewVersion(
            domain="heart",
            backbone_digest=store.put(tensors),
            backbone_architecture={},
            domain_digest=store.put({"domain": torch.full((16,), started + k)}),
            spec={"name": "heart"},
            plugin_digest="a" * 64,
            plan={},
            run_id=RUN.id,
            architecture={},
            metrics={"test": {"overall": {"dice": 0.9}}},
        )
        catalog.deployments.deploy(SLOT, catalog.versions.publish(version).number, "killed")


def upgrade(url: str) -> None:
    Catalog.upgrade(url)


def kill_within(
    forks: multiprocessing.context.ForkServerContext,
    longest_s: float,
    work: Callable[..., None],
    *arguments: object,
) -> None:
    process = forks.Process(target=work, args=arguments)
    process.start()
    time.sleep(random.Random(str(arguments)).uniform(0, longest_s))
    process.kill()
    process.join()


def test_killed_while_it_publishes_and_deploys(
    forks: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled")
    catalog.runs.create(RUN)
    store, seen = WeightStore(tmp_path / "weights"), 0
    for kill in range(KILLS):
        kill_within(forks, 0.3, publish_and_deploy, tmp_path, kill * 1000.0)
        catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
        versions = catalog.versions.list("heart")
        assert [version.number for version in versions] == list(range(1, len(versions) + 1))
        for version in versions[seen:]:
            store.get(version.backbone_digest)
            store.get(version.domain_digest)
        seen = len(versions)
    history = catalog.deployments.history("heart")[::-1]
    assert [one.previous for one in history] == [None, *(one.version for one in history[:-1])]
    # One that was killed between the two has published what is not deployed.
    assert seen - KILLS <= len(history) <= seen
    assert seen > KILLS


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_killed_while_it_upgrades(
    forks: multiprocessing.context.ForkServerContext, tmp_path: Path, revision: str
) -> None:
    left = set()
    for kill in range(KILLS):
        file = tmp_path / f"{kill}.db"
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript((STORED / f"{revision}.sql").read_text("utf-8"))
        url = f"sqlite:///{file}"
        kill_within(forks, 0.15, upgrade, url)
        found = Catalog.revision(url)
        assert found in (Revision(revision), Revision(HEAD_REVISION))
        left.add(found.current)
        assert Catalog.upgrade(url) == Revision(HEAD_REVISION)
        versions = Catalog.open(url).versions.list()
        assert [version.reference for version in versions] == ["heart:1", "spleen:1"]
    assert left == {revision, HEAD_REVISION}  # some were early, some late
