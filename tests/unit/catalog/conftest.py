"""A fresh catalog on SQLite and on PostgreSQL, and what is needed to publish in it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pgserver
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord

SPEC = {"name": "heart", "channels": ["MR"], "labels": [{"name": "left atrium", "values": [1]}]}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server that is started for these tests, and ends with them."""
    server = pgserver.get_server(tempfile.mkdtemp(prefix="u2net-postgresql-"), "delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/home/catalog.db"


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of its own, on each of the systems."""
    if request.param == "SQLite":
        yield request.getfixturevalue("sqlite")
        return
    server = make_url(request.getfixturevalue("postgresql"))
    name = f"catalog_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def catalog(url: str) -> Catalog:
    Catalog.upgrade(url)  # only SQLite's are made ready when they are opened
    return Catalog.open(url)


@pytest.fixture
def new_run() -> Callable[..., RunRecord]:
    def build(**changes: Any) -> RunRecord:
        fields: dict[str, Any] = {
            "id": "run-1",
            "kind": "train",
            "mode": "universal",
            "domains": ("heart",),
            "recipe": {"steps": 10, "betas": (0.9, 0.999)},
            "seed": 7,
            "fold": 0,
            "device": "cpu",
            "directory": "/runs/run-1",
        }
        return RunRecord(**fields | changes)

    return build


@pytest.fixture
def new_version() -> Callable[..., NewVersion]:
    def build(**changes: Any) -> NewVersion:
        fields: dict[str, Any] = {
            "domain": "heart",
            "backbone_digest": "b" * 64,
            "backbone_architecture": {"widths": (16, 32)},
            "domain_digest": "d" * 64,
            "spec": SPEC,
            "plugin_digest": "a" * 64,
            "plan": {"patch_zyx": (80, 192, 128)},
            "run_id": "run-1",
            "architecture": {"classes": 2},
        }
        return NewVersion(**fields | changes)

    return build


@pytest.fixture
def trained(catalog: Catalog, new_run: Callable[..., RunRecord]) -> Catalog:
    """A catalog with the domains heart and liver, and a run of both."""
    catalog.domains.add(SPEC, "heart", "a" * 64, "bundled")
    catalog.domains.add({**SPEC, "name": "liver"}, "liver", "a" * 64, "bundled")
    catalog.runs.create(new_run(domains=("liver", "heart")))
    return catalog
