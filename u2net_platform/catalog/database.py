"""Engine and transactions: writes that queue up instead of failing, and errors one can act on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError
from sqlalchemy.exc import IntegrityError as ConstraintViolated
from sqlalchemy.orm import Session

from u2net_platform.errors import CatalogUnreachable, Conflict, DiskFull, NotWritable, U2NetError
from u2net_platform.files import storage_errors
from u2net_platform.settings import without_password

T = TypeVar("T")
BUSY_TIMEOUT_S = 30
WRITE_ATTEMPTS = 20
UPGRADE_LOCK = 0x75326E6574  # any number that is ours: this one spells u2net


class Database:
    """One catalog database. Nothing is opened until the first transaction."""

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.shown_url = without_password(self.url.render_as_string(hide_password=False))
        self.engine = self._engine()

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        sqlite = self.url.get_backend_name() == "sqlite"
        return Path(self.url.database) if sqlite and self.url.database else None

    def make_folder(self) -> None:
        """Make the folder of an SQLite database, which SQLite does not do by itself.

        Raises:
            NotWritable
        """
        if self.file:
            with storage_errors(self.file):
                self.file.parent.mkdir(parents=True, exist_ok=True)

    def read(self, query: Callable[[Session], T]) -> T:
        """Run a query in a transaction of its own.

        Raises:
            CatalogUnreachable: the database does not answer.
        """
        with self.translated(), Session(self.engine) as session, session.begin():
            return query(session)

    def write(self, work: Callable[[Session], T]) -> T:
        """Run a transaction that writes; repeat it where another process was quicker.

        On SQLite writers queue up at BEGIN IMMEDIATE. Elsewhere two of them may collide at a
        unique constraint, and the second finds the first one's rows when it repeats.

        Raises:
            Conflict: the constraint stays violated.
            CatalogUnreachable, NotWritable, DiskFull
        """
        writer = self.engine.execution_options(u2net_writes=True)
        for attempt in range(WRITE_ATTEMPTS):
            try:
                with self.translated(), Session(writer) as session, session.begin():
                    return work(session)
            except ConstraintViolated as error:
                if attempt == WRITE_ATTEMPTS - 1:
                    raise Conflict(
                        f"The catalog refuses the change: {error.orig}", "Repeat the command."
                    ) from error
        raise AssertionError("unreachable")

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A writing transaction for schema changes, which may rebuild tables others refer to."""
        options = {"u2net_writes": True, "u2net_foreign_keys": False}
        with self.translated(), self.engine.execution_options(**options).begin() as connection:
            if self.url.get_backend_name() == "postgresql":
                # As BEGIN IMMEDIATE on SQLite: one at a time, the others wait.
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
            yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's errors into this project's."""
        try:
            yield
        except ConstraintViolated:
            raise
        except (DataError, UnicodeEncodeError, OverflowError) as error:
            raise Conflict(
                f"The catalog cannot hold a value: {getattr(error, 'orig', error)}",
                "Give a shorter text in UTF-8, or a smaller number.",
            ) from error
        except DBAPIError as error:
            raise self._error(str(error.orig)) from error

    def _error(self, reason: str) -> U2NetError:
        if "disk is full" in reason:
            return DiskFull(f"No room is left for {self.file}", "Free some space, then repeat.")
        locked_out = self.file is not None and not os.access(self.file.parent, os.W_OK)
        if "readonly" in reason or locked_out:
            return NotWritable(
                f"{self.file} cannot be written: {reason}",
                "Choose another U2NET_HOME, or change its permissions.",
            )
        return CatalogUnreachable(
            f"The catalog {self.shown_url} does not answer: {reason}",
            "Check U2NET_CATALOG_URL, and that the database is up.",
        )

    def _engine(self) -> Engine:
        try:
            # A server or firewall may have closed what lay idle while a network was trained.
            engine = create_engine(self.url, pool_pre_ping=True)
        except (ArgumentError, ImportError) as error:
            raise CatalogUnreachable(
                f"The catalog {self.shown_url} cannot be used: {error}",
                "Correct U2NET_CATALOG_URL, or install the driver that it names.",
            ) from error
        if self.file:
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        # The driver that is installed with this package's `postgresql` extra.
        psycopg = parsed.drivername in ("postgresql", "postgres")
        return parsed.set(drivername="postgresql+psycopg") if psycopg else parsed
    except ArgumentError as error:
        # The text is not shown: it may hold a password in a place where none is recognised.
        raise CatalogUnreachable(
            "U2NET_CATALOG_URL is no database URL",
            "Write it like sqlite:////path/catalog.db or postgresql://user@host/name.",
        ) from error


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions late and commit before schema changes: BEGIN is ours.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    foreign_keys = options.get("u2net_foreign_keys", True)
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {int(foreign_keys)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("u2net_writes") else "BEGIN")
