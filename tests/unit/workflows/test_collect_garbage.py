from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.tables import VERSION_TABLE
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.plan import derive_plan, take_fingerprint
from u2net_platform.data.store import PreparedStore
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import CatalogBehind, CatalogUnreachable, Conflict
from u2net_platform.files import exclusive
from u2net_platform.settings import Settings
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin
from u2net_platform.workflows.collect_garbage import collect_garbage
from u2net_platform.workflows.request import LOCK_FILE, REQUEST_FILE, STATE_FILE


@pytest.fixture
def stray(settings, publish_bright) -> str:
    """A file that no version names, beside those of bright:1; all of them old."""
    publish_bright()
    digest = WeightStore(settings.weights_dir).put({"stray": torch.ones(3)})
    for path in settings.weights_dir.iterdir():
        os.utime(path, (0, 0))
    return digest


def test_what_no_version_names_is_removed_and_nothing_else(settings, stray: str) -> None:
    before = {path.name for path in settings.weights_dir.iterdir()}
    for dry_run in (True, False):
        found = collect_garbage(settings, dry_run)
        assert [one.path.name for one in found] == [f"{stray}.safetensors"]
        after = {path.name for path in settings.weights_dir.iterdir()}
        assert before - after == (set() if dry_run else {f"{stray}.safetensors"})
    assert collect_garbage(settings, dry_run=False) == []


def test_half_of_a_checkpoint_is_removed(settings, stray: str) -> None:
    run = settings.runs_dir / "20260101-000000-abcd"
    run.mkdir(parents=True)
    for name in (".tmp-left", "checkpoint.safetensors"):
        (run / name).write_bytes(b"half")
        os.utime(run / name, (0, 0))
    found = collect_garbage(settings, dry_run=False)
    assert {one.path.name for one in found} == {f"{stray}.safetensors", ".tmp-left"}
    assert [path.name for path in run.iterdir()] == ["checkpoint.safetensors"]


def test_what_the_home_s_own_catalog_names_is_kept_once_another_is_used(
    settings, stray: str, publish_bright, tmp_path: Path
) -> None:
    other = settings.model_copy(update={"catalog_url": f"sqlite:///{tmp_path}/other.db"})
    with (
        closing(sqlite3.connect(settings.catalog_file)) as own,
        closing(sqlite3.connect(tmp_path / "other.db")) as copy,
    ):
        own.backup(copy)
    publish_bright(domain_digest=stray)
    assert collect_garbage(other, dry_run=True) == []
    settings.catalog_file.unlink()
    (found,) = collect_garbage(other, dry_run=True)
    assert found.path.stem == stray


def test_a_home_s_own_catalog_that_is_behind_is_named_with_its_own_remedy(
    settings, stray: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = settings.model_copy(update={"catalog_url": f"sqlite:///{tmp_path}/other.db"})
    with (
        closing(sqlite3.connect(settings.catalog_file)) as own,
        closing(sqlite3.connect(tmp_path / "other.db")) as copy,
    ):
        own.backup(copy)
        own.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
        own.commit()
    with pytest.raises(CatalogBehind, match=str(settings.catalog_file)) as caught:
        collect_garbage(other, dry_run=False)
    assert caught.value.hint == "Upgrade it: U2NET_CATALOG_URL= u2net catalog upgrade"
    monkeypatch.setenv("U2NET_CATALOG_URL", "")
    assert Settings().database_url == settings.database_url


def test_a_grace_that_is_no_number_keeps_everything(settings, stray: str) -> None:
    assert collect_garbage(settings, dry_run=False, grace_hours=float("nan")) == []


def test_what_was_just_written_again_is_kept(settings, stray: str) -> None:
    store = WeightStore(settings.weights_dir)
    assert store.put({"stray": torch.ones(3)}) == stray
    assert collect_garbage(settings, dry_run=False) == []
    assert len(collect_garbage(settings, dry_run=True, grace_hours=0)) == 1


def test_what_a_killed_writer_left_is_removed_once_it_is_old(settings, stray: str) -> None:
    left = settings.weights_dir / ".tmp-left.safetensors"
    left.write_bytes(b"half a file")
    assert left not in [one.path for one in collect_garbage(settings, dry_run=True)]
    os.utime(left, (time.time() - 90000,) * 2)
    assert left in [one.path for one in collect_garbage(settings, dry_run=False)]
    assert not left.exists()


def test_what_a_killed_preparation_left_is_removed_once_it_is_old(settings, stray: str) -> None:
    left, ready = (settings.prepared_dir / "bright" / name for name in (".tmp-left", "a" * 64))
    for folder in (left, ready):
        folder.mkdir(parents=True)
        (folder / "image.npy").write_bytes(b"1" * 100)
        os.utime(folder, (0, 0))
    assert left not in [one.path for one in collect_garbage(settings, dry_run=False)]
    for folder in (left, ready):
        os.utime(folder / "image.npy", (0, 0))
    (found,) = collect_garbage(settings, dry_run=False)
    assert (found.path, found.size) == (left, 100)
    assert (left.exists(), ready.exists()) == (False, True)


def test_prepared_cases_that_nobody_used_for_days_are_removed_on_request(
    settings, stray: str, tmp_path: Path
) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))
    cases = open_dataset(write_phantom("ball", tmp_path, cases=3, seed=0)).training
    plan = derive_plan(plugin.spec, take_fingerprint(plugin, cases, lambda _: None), 2**18)
    store = PreparedStore(settings.prepared_dir)
    used, found, unused = (store.prepare(plugin, plan, case) for case in cases)
    for case in (used, found, unused):
        for file in (case.directory, *case.directory.iterdir()):
            os.utime(file, (0, 0))
    store.prepare(plugin, plan, cases[0])
    assert store.find(plugin, plan, cases[1]) == found  # as the next run does

    def removed(days: float | None) -> list[Path]:
        found = collect_garbage(settings, dry_run=False, prepared_days=days)
        return [one.path for one in found if one.path.suffix != ".safetensors"]

    with exclusive(settings.runs_dir / "one" / LOCK_FILE), pytest.raises(Conflict, match="one"):
        removed(30)
    assert (settings.weights_dir / f"{stray}.safetensors").exists()
    assert removed(None) == []
    assert removed(30) == [unused.directory]
    assert store.find(plugin, plan, cases[0]) == used
    assert store.find(plugin, plan, cases[2]) is None
    assert {*used.directory.parent.iterdir()} == {used.directory, found.directory}


def test_what_is_no_file_of_ours_stays(settings, stray: str) -> None:
    kept = [settings.weights_dir / name for name in ("notes.txt", "a.safetensors", "folder")]
    for path in kept[:2]:
        path.write_text("mine")
    kept[2].mkdir()
    for path in kept:
        os.utime(path, (0, 0))
    assert len(collect_garbage(settings, dry_run=False)) == 1
    assert all(path.exists() for path in kept)


def test_with_a_catalog_that_names_nothing_all_weights_stay(
    settings, stray: str, tmp_path: Path
) -> None:
    other = settings.model_copy(update={"catalog_url": f"sqlite:///{tmp_path}/other.db"})
    before = sorted(settings.weights_dir.iterdir())
    with pytest.raises(Conflict, match="names no version") as caught:
        collect_garbage(other, dry_run=False)
    assert "U2NET_CATALOG_URL" in caught.value.hint
    assert sorted(settings.weights_dir.iterdir()) == before


@pytest.mark.parametrize("file", [REQUEST_FILE, STATE_FILE])
def test_where_another_catalog_has_a_run_all_weights_stay(settings, stray: str, file: str) -> None:
    version = Catalog.open(settings.database_url).find("bright")
    for run in (version.run_id, "20260131-120000-1a2b"):
        for name in (file, LOCK_FILE):
            (settings.runs_dir / run / name).parent.mkdir(parents=True, exist_ok=True)
            (settings.runs_dir / run / name).write_text("{}")
    with pytest.raises(Conflict, match="1a2b is of another catalog"):
        collect_garbage(settings, dry_run=False)
    shutil.rmtree(settings.runs_dir / run)
    (found,) = collect_garbage(settings, dry_run=False)
    assert found.path.stem == stray


def test_without_a_catalog_nothing_is_removed(settings, stray: str) -> None:
    file = settings.home / "catalog.db"
    for path in settings.home.glob("catalog.db-*"):  # SQLite would mend the file from its log
        path.unlink()
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(CatalogUnreachable):
        collect_garbage(settings, dry_run=False)
    assert (settings.weights_dir / f"{stray}.safetensors").exists()
