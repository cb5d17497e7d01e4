"""Where domain plugins are found: a given path, the user's folder, entry points, the platform."""

from __future__ import annotations

import difflib
import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from u2net_platform.domains.plugin import SPEC_FILE, DomainPlugin
from u2net_platform.errors import (
    BrokenPlugin,
    DomainError,
    DuplicateDomain,
    MissingFile,
    UnknownDomain,
)
from u2net_platform.files import TEMPORARY
from u2net_platform.settings import Settings

ENTRY_POINTS = "u2net_platform.domains"
Source = Literal["path", "folder", "entry point", "bundled"]


@dataclass(frozen=True)
class Found:
    """A place that claims to be a plugin: a plugin, or the fault that keeps it from being one."""

    name: str
    directory: Path
    source: Source
    plugin: DomainPlugin | None = None
    fault: DomainError | None = None

    @property
    def working(self) -> DomainPlugin:
        """The plugin of what `find_plugin` has found."""
        assert self.plugin is not None
        return self.plugin


def discover(settings: Settings, extras: Sequence[Path] = ()) -> list[Found]:
    """All plugins that this machine has, sorted by name; broken ones carry their fault.

    Args:
        extras: To look at besides: a plugin's folder, or a folder of such folders, each.

    Raises:
        MissingFile: one of `extras` is neither.
    """
    found: dict[Path, Found] = {}
    for candidate in _candidates(settings, extras):
        # A folder that is reached twice, by --path and as a bundled one, is one plugin.
        found.setdefault(candidate.directory.resolve(), candidate)
    return sorted(_mark_duplicates(list(found.values())), key=lambda one: (one.name, one.source))


def find_plugin(name: str, settings: Settings, extra: Path | None = None) -> Found:
    """The working plugin of this name, with where it was found.

    Raises:
        UnknownDomain: no plugin has this name; the hint has those that look alike.
        DuplicateDomain: several have.
        BrokenPlugin, InvalidSpec: the one that has is broken.
        MissingFile: `extra` holds no plugin.
    """
    everything = discover(settings, [extra] if extra else ())
    # A broken one that was named is not replaced by another without a word; its folder may be
    # called otherwise.
    broken = [one for one in everything if one.directory == extra and one.fault]
    claims = [one for one in everything if one.name == name]
    claims = broken or [one for one in claims if one.source == "path"] or claims
    for claim in claims:
        if claim.plugin is not None:
            return claim
    for claim in claims:
        if claim.fault is not None:
            raise claim.fault
    raise _unknown(name, everything)


def _candidates(settings: Settings, extras: Sequence[Path]) -> Iterator[Found]:
    for extra in extras:
        given = [extra] if (extra / SPEC_FILE).is_file() else _plugin_folders(extra)
        if not given:
            raise MissingFile(
                f"{extra} holds no {SPEC_FILE}, nor does a folder in it",
                "Name a plugin's folder, or write one: u2net domain new --help",
            )
        yield from (_load(directory, "path") for directory in given)
    yield from (_load(directory, "folder") for directory in _plugin_folders(settings.plugins_dir))
    yield from (_load_entry(entry) for entry in entry_points(group=ENTRY_POINTS))
    yield from (_load(directory, "bundled") for directory in _plugin_folders(_bundled_dir()))


def _plugin_folders(parent: Path) -> list[Path]:
    found = (path.parent for path in parent.glob(f"*/{SPEC_FILE}"))
    return sorted(path for path in found if not path.name.startswith(TEMPORARY))


def _bundled_dir() -> Path:
    package = Path(__file__).parents[1]
    wheel = package / "_plugins"
    # The wheel's first: what lies beside an installed package may be anybody's.
    return wheel if wheel.is_dir() else package.parent / "plugins"


def _load(directory: Path, source: Source) -> Found:
    try:
        plugin = DomainPlugin.load(directory)
    except DomainError as fault:
        return Found(directory.name, directory, source, fault=fault)
    except OSError as error:
        unread = BrokenPlugin(f"{directory} cannot be read: {error}", "Change its permissions.")
        return Found(directory.name, directory, source, fault=unread)
    # Elsewhere the folder's name belongs to somebody else: to a package, or to who wrote --path.
    if source in ("folder", "bundled") and directory.name != plugin.name:
        return Found(directory.name, directory, source, fault=_misnamed(plugin))
    return Found(plugin.name, directory, source, plugin)


def _load_entry(entry: EntryPoint) -> Found:
    try:
        spec = importlib.util.find_spec(entry.module)
    except Exception as error:  # finding a module runs the code of the packages around it
        return _broken_entry(entry, f"{type(error).__name__}: {error}")
    if spec is None:
        return _broken_entry(entry, "there is no such module")
    # A package has a folder, also where it has no __init__.py; a module lies in one.
    folders = spec.submodule_search_locations or [str(Path(spec.origin or "").parent)]
    directory = Path(next(iter(folders)))
    if not (directory / SPEC_FILE).is_file():
        return _broken_entry(entry, f"{directory} holds no {SPEC_FILE}")
    return _load(directory, "entry point")


def _broken_entry(entry: EntryPoint, reason: str) -> Found:
    fault = BrokenPlugin(
        f"the entry point {entry.name} = {entry.value} names no plugin: {reason}",
        "Reinstall the package that declares it, or remove that package.",
    )
    return Found(entry.name, Path(entry.module.replace(".", "/")), "entry point", fault=fault)


def _misnamed(plugin: DomainPlugin) -> BrokenPlugin:
    return BrokenPlugin(
        f"{plugin.directory} declares the name {plugin.name!r}, which is not its folder's",
        f"Rename the folder to {plugin.name}, or the domain to {plugin.directory.name}.",
    )


def _mark_duplicates(found: list[Found]) -> list[Found]:
    """Put a fault on plugins that work but share a name; a broken one claims no name."""
    places: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one.plugin is not None:
            places[one.name].append(str(one.directory))
    return [
        replace(one, plugin=None, fault=_duplicate(one.name, places[one.name]))
        if one.plugin is not None and len(places[one.name]) > 1
        else one
        for one in found
    ]


def _duplicate(name: str, places: list[str]) -> DuplicateDomain:
    return DuplicateDomain(
        f"the domain {name!r} is declared in {' and in '.join(places)}",
        "Rename one of them, or move it out of the way.",
    )


def _unknown(name: str, everything: list[Found]) -> UnknownDomain:
    names = sorted({one.name for one in everything if one.plugin is not None})
    near = difflib.get_close_matches(name, names)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(names)}."
    broken = sum(one.fault is not None for one in everything)
    if broken:
        hint += f" {broken} more cannot be used: u2net domain list says why."
    return UnknownDomain(f"there is no domain {name!r}", hint)
