"""Domains in use: taken into the catalog, and found again by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import DomainRecord
from u2net_platform.data.dataset import open_dataset
from u2net_platform.domains.discovery import Found, discover, find_plugin
from u2net_platform.domains.plugin import SPEC_FILE
from u2net_platform.errors import MissingFile, UnknownDomain
from u2net_platform.settings import Settings

WITHOUT_PLUGIN = {"bundle", "federation"}  # sources of domains whose versions were made elsewhere


@dataclass(frozen=True)
class Added:
    """A domain's record, and what adding it has changed: its spec or code, or only the rest."""

    record: DomainRecord
    change: Literal["added", "changed", "moved", "unchanged"]


@dataclass(frozen=True)
class Overview:
    """A domain as `domain list` shows it: a plugin on this machine, a row of the catalog, or both.

    `fault` says why it cannot be used; `directory` is None where a plugin has disappeared, or where
    there was none: what came in a bundle or by a federation predicts without.
    """

    name: str
    source: str
    directory: Path | None
    description: str
    added: bool
    data_dir: str | None
    fault: str | None


def add_domain(found: Found, catalog: Catalog, data_dir: Path | None) -> Added:
    """Register a plugin, and where its data lies; nothing is copied. Adding again is harmless.

    Raises:
        MissingFile, InvalidDataset: `data_dir` holds no data set.
    """
    assert found.plugin is not None  # find_plugin gives working plugins only
    plugin = found.plugin
    if data_dir is not None:
        data_dir = open_dataset(data_dir).directory.resolve()
    before = record_of(plugin.name, catalog)
    record = catalog.domains.add(
        plugin.spec.document(),
        plugin.name,
        plugin.digest,
        # A plugin from elsewhere is found again by its folder, any other by discovery: the
        # platform's own folders move when it is installed anew.
        str(found.directory.resolve()) if found.source == "path" else found.source,
        str(data_dir) if data_dir else None,
    )
    if before is None:
        return Added(record, "added")
    if before.plugin_digest != record.plugin_digest:
        return Added(record, "changed")
    return Added(record, "unchanged" if before == record else "moved")


def find_added(name: str, settings: Settings, catalog: Catalog, place: Path | None = None) -> Found:
    """The plugin of a domain: from the given place, else also from where it was added from.

    Raises:
        UnknownDomain, DuplicateDomain, BrokenPlugin, InvalidSpec: as `find_plugin` does.
    """
    record = None if place else record_of(name, catalog)
    try:
        return find_plugin(name, settings, _own_folder(record) if record else place)
    except UnknownDomain as error:
        if record is None:
            raise
        was = Path(record.source)
        where = f"no longer in {was}" if was.is_absolute() else "not on this machine"
        raise UnknownDomain(
            f"the catalog has the domain {name}, but its plugin is {where}",
            f"Say where it is: u2net domain add {name} --path FOLDER; or write it anew:"
            f" u2net domain new {name} --from-dataset DIR",
        ) from error


def data_dir_of(name: str, catalog: Catalog, given: Path | None) -> Path:
    """Where a domain's data lies: as given, else as the catalog has it.

    Raises:
        MissingFile: neither says, or the catalog names a folder that is gone.
    """
    if given is not None:
        return given
    record = record_of(name, catalog)
    if record is None or record.data_dir is None:
        raise MissingFile(
            f"nothing says where the data of {name} lies",
            f"Say where: u2net domain add {name} --data DIR; or evaluate all of a data set:"
            " --cases all --data DIR",
        )
    if not Path(record.data_dir).is_dir():
        raise MissingFile(
            f"the data of {name} are no longer in {record.data_dir}",
            f"Put them back, or say where they are: u2net domain add {name} --data DIR",
        )
    return Path(record.data_dir)


def require_trainable(settings: Settings, catalog: Catalog, names: Iterable[str]) -> None:
    """Before the first of several runs: whether each domain is there, and its data are.

    Raises:
        DomainError, MissingFile
    """
    for name in names:
        assert find_added(name, settings, catalog).working
        catalog.domains.get(name)
        data_dir_of(name, catalog, None)


def overview(settings: Settings, catalog: Catalog) -> list[Overview]:
    """Every domain that this machine has or had, broken ones included, sorted by name."""
    records = {record.name: record for record in catalog.domains.list()}
    own_folders = [folder for record in records.values() if (folder := _own_folder(record))]
    rows = [_row(one, records.get(one.name)) for one in discover(settings, own_folders)]
    seen = {row.name for row in rows}
    rows += [_gone(record) for name, record in records.items() if name not in seen]
    return sorted(rows, key=lambda row: (row.name, str(row.directory)))


def _row(found: Found, record: DomainRecord | None) -> Overview:
    return Overview(
        name=found.name,
        source=found.source,
        directory=found.directory,
        description=found.plugin.spec.description if found.plugin else "",
        added=record is not None,
        data_dir=record.data_dir if record else None,
        fault=found.fault.message if found.fault else None,
    )


def _gone(record: DomainRecord) -> Overview:
    return Overview(
        name=record.name,
        source=record.source,
        directory=None,
        description=record.spec["description"],
        added=True,
        data_dir=record.data_dir,
        fault=None if record.source in WITHOUT_PLUGIN else "its plugin is no longer there",
    )


def _own_folder(record: DomainRecord) -> Path | None:
    folder = Path(record.source)
    return folder if folder.is_absolute() and (folder / SPEC_FILE).is_file() else None


def record_of(name: str, catalog: Catalog) -> DomainRecord | None:
    """What the catalog has of a domain, if it has it."""
    try:
        return catalog.domains.get(name)
    except UnknownDomain:
        return None
