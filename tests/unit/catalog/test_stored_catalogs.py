from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from u2net_platform.catalog.catalog import Catalog, Revision
from u2net_platform.catalog.tables import HEAD_REVISION

STORED = sorted((Path(__file__).parents[2] / "catalogs").glob("*.sql"))


@pytest.mark.parametrize("dump", STORED, ids=lambda path: path.stem)
def test_a_catalog_of_each_released_revision_is_upgraded_and_loses_nothing(
    dump: Path, tmp_path: Path
) -> None:
    file = tmp_path / "catalog.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    assert Catalog.revision(f"sqlite:///{file}") == Revision(dump.stem)
    assert Catalog.upgrade(f"sqlite:///{file}") == Revision(HEAD_REVISION)

    catalog = Catalog.open(f"sqlite:///{file}")
    assert [domain.data_dir for domain in catalog.domains.list()] == ["/data/heart", "/data/spleen"]
    assert catalog.runs.get("run-2").base_version == "heart:1"
    assert catalog.runs.get("run-1").fingerprints == {"heart": {"data_digest": "f" * 64}}
    shared = catalog.versions.by_backbone("b" * 64)
    assert [version.reference for version in shared] == ["heart:1", "spleen:1"]
    assert shared[0].plan == {"patch_zyx": [80, 192, 128]}
    assert shared[1].metrics == {"dice": 0.9}


def test_the_present_revision_is_among_the_stored() -> None:
    assert HEAD_REVISION in [dump.stem for dump in STORED]
