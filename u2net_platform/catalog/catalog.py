"""The catalog as one object: open it, then ask its parts, such as `versions`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from u2net_platform.catalog import migrations
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.deployments import Deployments
from u2net_platform.catalog.domains import Domains
from u2net_platform.catalog.federations import Federations
from u2net_platform.catalog.imports import Imports
from u2net_platform.catalog.records import Slot, VersionRecord
from u2net_platform.catalog.references import parse_reference
from u2net_platform.catalog.runs import Runs
from u2net_platform.catalog.tables import HEAD_REVISION
from u2net_platform.catalog.versions import Versions
from u2net_platform.settings import Settings


@dataclass(frozen=True)
class Revision:
    """Where the database's schema stands (None: no catalog yet), and where the program's does."""

    current: str | None
    head: str = HEAD_REVISION


class Catalog:
    """An open catalog; several processes may hold the same one."""

    def __init__(self, database: Database) -> None:
        self.domains = Domains(database)
        self.runs = Runs(database)
        self.versions = Versions(database)
        self.deployments = Deployments(database)
        self.imports = Imports(database)
        self.federations = Federations(database)

    def find(self, reference: str) -> VersionRecord:
        """The version that `heart`, `heart:3` or `heart@champion/north` names.

        Raises:
            UnknownDomain, UnknownRecord
        """
        wanted = parse_reference(reference)
        if wanted.alias is None:
            return self.versions.get(wanted.domain, wanted.number)
        slot = Slot(domain=wanted.domain, alias=wanted.alias, site=wanted.site)
        return self.deployments.version_in_service(slot)

    @classmethod
    def open(cls, url: str | None = None) -> Catalog:
        """Open a catalog; an SQLite database that is new or empty is made ready first.

        url: of SQLAlchemy; that of the environment (`U2NET_*`) if None.

        Raises:
            CatalogBehind: the database is older or newer than this program.
            CatalogUnreachable, NotWritable, DiskFull: with the password of `url` hidden.
        """
        url = url or Settings().database_url
        database = Database(url)
        database.make_folder()
        revision, empty = _state(database)
        if empty and database.file:
            revision = cls.upgrade(url).current
        migrations.require_head(revision, database.shown_url)
        return cls(database)

    @staticmethod
    def upgrade(url: str) -> Revision:
        """Bring a database to the program's revision, creating its tables where there are none.

        Whoever else upgrades it at the same time waits, and then finds nothing to do.

        Raises:
            CatalogBehind: the database is newer than this program.
            CatalogUnreachable, NotWritable, DiskFull
        """
        database = Database(url)
        database.make_folder()
        with database.connection() as connection:
            current = migrations.current_revision(connection)
            migrations.refuse_newer(current, database.shown_url)
            if current != HEAD_REVISION:
                migrations.migrate(connection)
            return Revision(migrations.current_revision(connection))

    @staticmethod
    def revision(url: str) -> Revision:
        """Tell the revisions of database and program, and change neither.

        Raises:
            CatalogUnreachable, NotWritable
        """
        database = Database(url)
        if database.file and not database.file.exists():
            return Revision(None)
        return Revision(_state(database)[0])


def _state(database: Database) -> tuple[str | None, bool]:
    def query(session: Session) -> tuple[str | None, bool]:
        connection = session.connection()
        return migrations.current_revision(connection), migrations.is_empty(connection)

    return database.read(query)
