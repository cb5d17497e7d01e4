from __future__ import annotations

import os
import time

import pytest
import torch

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import CatalogUnreachable
from u2net_platform.workflows.collect_garbage import collect_garbage


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


def test_without_a_catalog_nothing_is_removed(settings, stray: str) -> None:
    file = settings.home / "catalog.db"
    for path in settings.home.glob("catalog.db-*"):  # SQLite would mend the file from its log
        path.unlink()
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(CatalogUnreachable):
        collect_garbage(settings, dry_run=False)
    assert (settings.weights_dir / f"{stray}.safetensors").exists()
