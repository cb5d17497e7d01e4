from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from u2net_platform.catalog import migrations
from u2net_platform.catalog.catalog import Catalog, Revision
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.records import Page
from u2net_platform.catalog.tables import HEAD_REVISION, VERSION_TABLE, Base, DomainRow
from u2net_platform.errors import CatalogBehind, CatalogUnreachable, Conflict, NotWritable
from u2net_platform.settings import Settings
from u2net_platform.workflows.doctor import examine

CHECKOUT = Path(__file__).parents[3]


def run_sql(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        found = connection.execute(text(statement))
        return [tuple(row) for row in found] if found.returns_rows else []


def test_the_migrations_make_exactly_the_tables_of_the_program(catalog: Catalog, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        # What Alembic does not compare: primary keys.
        for table in Base.metadata.sorted_tables:
            made = inspect(connection).get_pk_constraint(table.name)
            assert made["constrained_columns"] == [column.name for column in table.primary_key]


def test_the_programs_revision_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.migrations_folder()))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD_REVISION


def test_readers_do_not_wait_for_writers(sqlite: str) -> None:
    Catalog.open(sqlite)
    assert run_sql(sqlite, "PRAGMA journal_mode") == [("wal",)]


def test_a_row_that_names_a_missing_one_is_refused(catalog: Catalog, url: str) -> None:
    orphan = text("INSERT INTO u2net_run_bases (run_id, version_id) VALUES ('none', 1)")
    with pytest.raises(Conflict, match=r"(?i)foreign key"):
        Database(url).write(lambda session: session.execute(orphan))


def test_a_connection_that_the_server_has_closed_is_made_again(postgresql: str) -> None:
    # As after a restart, or through a firewall that forgets what lies idle for hours.
    database = Database(postgresql)
    own = database.read(lambda session: session.execute(text("SELECT pg_backend_pid()")).scalar())
    run_sql(postgresql, f"SELECT pg_terminate_backend({own})")
    assert database.read(lambda session: session.execute(text("SELECT 1")).scalar()) == 1


@pytest.mark.parametrize(
    ("value", "page"), [("/data/\udcfc", 0), ("/data", 10**20)], ids=["not UTF-8", "too large"]
)
def test_what_no_database_holds_is_refused_with_a_reason(
    catalog: Catalog, value: str, page: int
) -> None:
    with pytest.raises(Conflict, match="cannot hold a value"):
        catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled", value)
        catalog.runs.list(Page(offset=page))


def test_a_write_that_collides_is_repeated(catalog: Catalog, url: str) -> None:
    # What another process does on a database whose writers do not queue up.
    catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled")
    names = iter(["heart", "heart", "liver"])

    def work(session: Session) -> str:
        row = DomainRow(name=next(names), plugin_digest="a", source="bundled")
        row.spec_digest = catalog.domains.get("heart").spec_digest
        session.add(row)
        session.flush()
        return row.name

    assert Database(url).write(work) == "liver"
    assert [domain.name for domain in catalog.domains.list()] == ["heart", "liver"]


def open_when_told(url: str, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    Catalog.upgrade(url)
    assert Catalog.open(url).domains.list() == []


def test_processes_that_open_a_fresh_catalog_at_once_all_succeed(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=open_when_told, args=(url, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert Catalog.revision(url) == Revision(HEAD_REVISION)


def test_an_empty_file_becomes_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert Catalog.open(f"sqlite:///{tmp_path}/empty.db").domains.list() == []


def test_asking_for_the_revision_makes_no_database(sqlite: str) -> None:
    assert Catalog.revision(sqlite) == Revision(None)
    assert not Path(sqlite.removeprefix("sqlite:///")).parent.exists()


def test_an_older_catalog_is_refused_with_the_command_that_upgrades_it(
    catalog: Catalog, url: str
) -> None:
    run_sql(url, f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
    with pytest.raises(CatalogBehind, match="revision 0000") as caught:
        Catalog.open(url)
    assert "u2net catalog upgrade" in caught.value.hint


def test_a_newer_catalog_is_refused_by_open_and_by_upgrade(catalog: Catalog, url: str) -> None:
    run_sql(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for refused in (Catalog.open, Catalog.upgrade):
        with pytest.raises(CatalogBehind, match=r"9999.*newer") as caught:
            refused(url)
        assert "Upgrade the program" in caught.value.hint


def test_anothers_database_gets_tables_only_when_asked_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mlflow.db"
    run_sql(url, "CREATE TABLE runs (id TEXT)")
    with pytest.raises(CatalogBehind, match="revision none"):
        Catalog.open(url)
    assert run_sql(url, "SELECT name FROM sqlite_master") == [("runs",)]
    assert Catalog.upgrade(url) == Revision(HEAD_REVISION)
    assert Catalog.open(url).domains.list() == []


@pytest.mark.parametrize("url", ["PostgreSQL"], indirect=True)
def test_an_empty_database_on_a_server_fails_with_its_remedy(url: str, settings: Settings) -> None:
    (found,) = [
        one
        for one in examine(settings.model_copy(update={"catalog_url": url}))
        if one.subject == "catalog"
    ]
    assert (found.status, found.remedy) == ("fail", "Upgrade it: u2net catalog upgrade")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(CatalogUnreachable, match=r"catalog\.db.*not a database"):
        Catalog.open(f"sqlite:///{file}")
    assert file.read_bytes() == b"no database at all" * 100


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(NotWritable, match=str(tmp_path / "home")):
        Catalog.open(f"sqlite:///{tmp_path}/home/catalog.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotWritable, match=str(tmp_path)):
        Catalog.open(f"sqlite:///{tmp_path}/catalog.db")


@pytest.mark.parametrize(
    "url",
    [
        "nosuchdb://user:s3cret@host/name",
        "oracle+cx_oracle://user:s3cret@host/name",
        "user:s3cret@host",
        "postgresql://127.0.0.1:1/name?user=u&password=s3cret",
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url: str) -> None:
    with pytest.raises(CatalogUnreachable) as caught:
        Catalog.open(url)
    assert "s3cret" not in str(caught.value)


def test_opening_imports_neither_alembic_nor_torch(sqlite: str) -> None:
    Catalog.open(sqlite)
    code = (
        "import sys; from u2net_platform.catalog.catalog import Catalog;"
        "import u2net_platform.catalog.weights;"
        f"Catalog.open({sqlite!r}).domains.list();"
        "print({'alembic', 'torch', 'numpy'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (ended.stdout.strip(), ended.stderr) == ("set()", "")


def test_an_installed_package_finds_its_own_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beside an installed package lies the Alembic library, under the name of the checkout's folder.
    (tmp_path / "alembic").mkdir()
    (tmp_path / "alembic" / "__init__.py").touch()
    monkeypatch.setattr(migrations, "PACKAGE", tmp_path / "u2net_platform")
    assert migrations.migrations_folder() == tmp_path / "u2net_platform" / "_alembic"
    (tmp_path / "alembic" / "env.py").touch()
    assert migrations.migrations_folder() == tmp_path / "alembic"
