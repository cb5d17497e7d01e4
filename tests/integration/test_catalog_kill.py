"""Commands that are killed while they write the catalog: it opens, every row has its file, and the
same command again completes. Those that write and read bundles are in `unit/workflows`."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog, Revision
from u2net_platform.catalog.records import NewVersion, RunRecord, Slot
from u2net_platform.catalog.tables import HEAD_REVISION
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import Conflict

STORED = Path(__file__).parents[1] / "catalogs"
BEHIND = sorted({path.stem for path in STORED.glob("????.sql")} - {HEAD_REVISION})
SLOT = Slot(domain="heart")
RUN = RunRecord(
    id="run", kind="train", mode="universal", domains=("heart",), recipe={}, seed=0, fold=0,
    device="cpu", directory="run",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled")
    return tmp_path


def publish(home: Path, run: str) -> None:
    """As training does it: files, then the row, unless the run has published already."""
    catalog, store = Catalog.open(f"sqlite:///{home}/catalog.db"), WeightStore(home / "weights")
    with suppress(Conflict):
        catalog.runs.create(RUN.model_copy(update={"id": run}))
    number = int.from_bytes(hashlib.sha256(run.encode()).digest()[:2])
    backbone, domain, probe = (
        store.put({name: torch.full((64, 1024), float(number))}) for name in ("b", "d", "p")
    )
    version = NewVersion(
        domain="heart",
        backbone_digest=backbone,
        backbone_architecture={},
        domain_digest=domain,
        spec={"name": "heart"},
        plugin_digest="a" * 64,
        plan={},
        run_id=run,
        architecture={},
        metrics={"test": {"overall": {"dice": 0.9}}},
        probe={"input": probe},
    )
    if not catalog.versions.by_run(run):
        catalog.versions.publish(version)


def deploy(home: Path, number: int) -> None:
    Catalog.open(f"sqlite:///{home}/catalog.db").deployments.deploy(SLOT, number, "killed")


def test_killed_while_it_publishes(home: Path, kills) -> None:
    def then(kill: int) -> None:
        for again in (False, True):
            if again:
                publish(home, f"run-{kill}")
            catalog = Catalog.open(f"sqlite:///{home}/catalog.db")
            numbers = [version.number for version in catalog.versions.list("heart")]
            assert numbers == list(range(1, len(numbers) + 1))
            store = WeightStore(home / "weights")
            assert all(store.get(digest) for digest in catalog.versions.digests_of_files())
        assert len(catalog.versions.by_run(f"run-{kill}")) == 1
        assert len(numbers) == kill + 3  # with the two by which the time was measured

    kills(publish, lambda kill: (home, f"run-{kill}"), then, 12)


def test_killed_while_it_deploys(home: Path, kills) -> None:
    for run in ("first", "second"):
        publish(home, run)

    def then(kill: int) -> None:
        catalog = Catalog.open(f"sqlite:///{home}/catalog.db")
        assert len(catalog.deployments.history()) in (kill + 2, kill + 3)
        deploy(home, kill % 2 + 1)
        history = catalog.deployments.history()[::-1]
        assert len(history) == kill + 3
        assert [one.previous for one in history] == [None, *(one.version for one in history[:-1])]
        assert catalog.find("heart@champion").number == kill % 2 + 1

    kills(deploy, lambda kill: (home, kill % 2 + 1), then, 12)


@pytest.mark.parametrize("revision", BEHIND)
def test_killed_while_it_upgrades(tmp_path: Path, revision: str, kills) -> None:
    def url(kill: int) -> str:
        file = tmp_path / f"{kill}.db"
        if not file.exists():
            with closing(sqlite3.connect(file)) as connection:
                connection.executescript((STORED / f"{revision}.sql").read_text("utf-8"))
        return f"sqlite:///{file}"

    def then(kill: int) -> None:
        assert Catalog.revision(url(kill)) in (Revision(revision), Revision(HEAD_REVISION))
        assert Catalog.upgrade(url(kill)) == Revision(HEAD_REVISION)
        versions = Catalog.open(url(kill)).versions.list()
        assert [version.reference for version in versions] == stored

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((STORED / f"{revision}.sql").read_text("utf-8"))
        rows = connection.execute("SELECT domain, number FROM u2net_versions ORDER BY 1, 2")
        stored = [f"{domain}:{number}" for domain, number in rows]
    assert {"heart:1", "spleen:1"} <= {*stored}
    assert "0003" in BEHIND
    kills(Catalog.upgrade, lambda kill: (url(kill),), then, 6)
