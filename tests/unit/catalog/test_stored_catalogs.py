from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, insert, select

from u2net_platform.catalog.catalog import Catalog, Revision
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.migrations import migrations_folder
from u2net_platform.catalog.tables import HEAD_REVISION, VERSION_TABLE

FOLDER = Path(__file__).parents[2] / "catalogs"
STORED = sorted(FOLDER.glob("*.sql"))


def restore(dump: Path, url: str, folder: Path) -> None:
    """A stored catalog in a database of either system; the dump itself is SQLite's."""
    file = Path(Database(url).file or folder / "dump.db")
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    if Database(url).file is None:
        _copy(f"sqlite:///{file}", url, dump.stem[:4])


def _copy(source_url: str, url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with create_engine(source_url).connect() as source, Database(url).connection() as target:
        config.attributes["connection"] = target
        command.upgrade(config, revision)
        before, after = MetaData(), MetaData()
        before.reflect(source), after.reflect(target)
        for table in after.sorted_tables:
            rows = source.execute(select(before.tables[table.name])).mappings().all()
            if rows and table.name != VERSION_TABLE:
                target.execute(insert(table), [dict(row) for row in rows])


@pytest.mark.parametrize("dump", STORED, ids=lambda path: path.stem)
def test_a_catalog_of_each_released_revision_is_upgraded_and_loses_nothing(
    dump: Path, url: str, tmp_path: Path
) -> None:
    restore(dump, url, tmp_path)
    assert Catalog.revision(url) == Revision(dump.stem[:4])
    assert Catalog.upgrade(url) == Revision(HEAD_REVISION)

    catalog = Catalog.open(url)
    assert [domain.data_dir for domain in catalog.domains.list()] == ["/data/heart", "/data/spleen"]
    assert catalog.runs.get("run-2").base_version == "heart:1"
    assert catalog.runs.get("run-1").fingerprints == {"heart": {"data_digest": "f" * 64}}
    shared = {one.reference: one for one in catalog.versions.by_backbone("b" * 64)}
    assert {"heart:1", "spleen:1"} <= set(shared)
    assert shared["heart:1"].plan == {"patch_zyx": [80, 192, 128]}
    assert shared["spleen:1"].metrics == {"dice": 0.9}


def test_deployments_and_rounds_of_a_stored_catalog_stay(url: str, tmp_path: Path) -> None:
    restore(FOLDER / "0004_service.sql", url, tmp_path)
    Catalog.upgrade(url)
    catalog = Catalog.open(url)
    assert [(one.action, one.version, one.forced) for one in catalog.deployments.history()] == [
        ("rollback", "heart:1", True),
        ("deploy", "heart:2", True),
        ("deploy", "heart:1", True),
        ("deploy", "heart:1", True),
    ]
    assert catalog.find("heart@champion/north").reference == "heart:1"
    (done,) = catalog.federations.rounds("run-1")
    assert [(one.site, one.bytes_up, one.reason) for one in done.contributions] == [
        ("north", 2**40, ""),
        ("south", 0, "NotFinite"),
    ]
    seen = catalog.versions.that_saw_site("north")
    assert [one.version for one in seen] == ["heart:1", "heart:2", "spleen:1"]


def test_what_a_domain_of_a_run_began_with_stays(url: str, tmp_path: Path) -> None:
    restore(FOLDER / "0005.sql", url, tmp_path)
    Catalog.upgrade(url)
    catalog = Catalog.open(url)
    assert [catalog.runs.get(name).starts for name in ("run-1", "run-2")] == [
        {},
        {"spleen": "heart:1"},
    ]


def test_what_was_withdrawn_stays_withdrawn(url: str, tmp_path: Path) -> None:
    restore(FOLDER / "0006.sql", url, tmp_path)
    Catalog.upgrade(url)
    catalog = Catalog.open(url)
    assert [str(one.slot) for one in catalog.deployments.current()] == ["heart@champion"]
    assert catalog.find("heart@champion/north").reference == "heart:1"


def test_the_present_revision_is_among_the_stored() -> None:
    assert HEAD_REVISION in [dump.stem for dump in STORED]
