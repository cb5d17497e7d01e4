import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from u2net_platform.domains import discovery
from u2net_platform.domains.discovery import discover, find_plugin
from u2net_platform.errors import (
    BrokenPlugin,
    DuplicateDomain,
    InvalidSpec,
    MissingFile,
    UnknownDomain,
)
from u2net_platform.settings import Settings

NewPlugin = Callable[..., Path]
BUNDLED = ["heart", "hippocampus", "liver", "pancreas", "prostate", "spleen"]


def declare_entry_point(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry = EntryPoint(name, value, discovery.ENTRY_POINTS)
    monkeypatch.setattr(discovery, "entry_points", lambda group: [entry])


def test_the_six_domains_of_the_paper_are_there(settings: Settings) -> None:
    found = discover(settings)
    assert [one.name for one in found] == BUNDLED
    assert {one.source for one in found} == {"bundled"}


def test_a_plugin_is_found_in_the_users_folder_and_by_path(
    settings: Settings, tmp_path: Path, new_plugin: NewPlugin
) -> None:
    new_plugin(settings.plugins_dir, "kidney")
    lungs = new_plugin(tmp_path / "mine", "lungs")
    assert find_plugin("kidney", settings).source == "folder"
    for extra in (lungs, lungs.parent):
        assert find_plugin("lungs", settings, extra).source == "path"


@pytest.mark.parametrize(
    ("file", "value"),
    [("__init__.py", "u2net_kidney"), ("README", "u2net_kidney"), ("spec.py", "u2net_kidney.spec")],
)
def test_a_plugin_is_found_by_the_entry_point_of_an_installed_package(
    settings: Settings,
    tmp_path: Path,
    new_plugin: NewPlugin,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    value: str,
) -> None:
    package = new_plugin(tmp_path / "site", "kidney").rename(tmp_path / "site" / "u2net_kidney")
    (package / file).touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "u2net_kidney", raising=False)
    declare_entry_point(monkeypatch, "kidney", value)
    assert find_plugin("kidney", settings).source == "entry point"


def test_an_entry_point_to_nothing_is_listed_as_broken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare_entry_point(monkeypatch, "kidney", "no_such_package_here.domain")
    (broken,) = [one for one in discover(settings) if one.fault]
    assert broken.name == "kidney"
    assert isinstance(broken.fault, BrokenPlugin)


def test_a_name_found_twice_names_both_places(
    settings: Settings, tmp_path: Path, new_plugin: NewPlugin
) -> None:
    first = new_plugin(settings.plugins_dir, "kidney")
    second = new_plugin(tmp_path / "mine", "kidney")
    claims = [one for one in discover(settings, [second]) if one.name == "kidney"]
    assert len(claims) == 2
    assert all(isinstance(one.fault, DuplicateDomain) and one.plugin is None for one in claims)
    with pytest.raises(DuplicateDomain) as caught:
        find_plugin("kidney", settings, second)
    assert str(first) in caught.value.message
    assert str(second) in caught.value.message


def test_a_folder_reached_in_two_ways_is_one_plugin(
    settings: Settings, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(settings.plugins_dir, "kidney")
    assert find_plugin("kidney", settings, directory).working.name == "kidney"


@pytest.mark.parametrize("code", ["import no_such_module_here", "raise SystemExit(3)", "def ("])
def test_a_broken_plugin_is_listed_while_others_work(
    settings: Settings, new_plugin: NewPlugin, code: str
) -> None:
    new_plugin(settings.plugins_dir, "broken", code)
    found = {one.name: one for one in discover(settings)}
    assert isinstance(found["broken"].fault, BrokenPlugin)
    assert [name for name, one in found.items() if one.plugin] == BUNDLED
    with pytest.raises(BrokenPlugin, match=r"plugin\.py"):
        find_plugin("broken", settings)


def test_what_a_killed_process_left_is_no_plugin_and_a_link_to_nowhere_no_plugin_without_code(
    settings: Settings, new_plugin: NewPlugin
) -> None:
    new_plugin(settings.plugins_dir, "kidney").rename(settings.plugins_dir / ".tmp-1")
    assert [one.name for one in discover(settings)] == BUNDLED
    lungs = new_plugin(settings.plugins_dir, "lungs")
    (lungs / "plugin.py").unlink(missing_ok=True)
    (lungs / "plugin.py").symlink_to("nowhere.py")
    with pytest.raises(BrokenPlugin):
        find_plugin("lungs", settings)


def test_an_invalid_spec_is_listed_under_its_folders_name(
    settings: Settings, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(settings.plugins_dir, "kidney")
    (directory / "domain.toml").write_text("name = 3")
    with pytest.raises(InvalidSpec):
        find_plugin("kidney", settings)


def test_a_broken_plugin_does_not_take_the_name_of_a_working_one(
    settings: Settings, new_plugin: NewPlugin
) -> None:
    new_plugin(settings.plugins_dir, "heart", "import no_such_module_here")
    assert find_plugin("heart", settings).source == "bundled"


def test_a_broken_plugin_that_is_given_by_path_is_not_replaced_by_another(
    settings: Settings, tmp_path: Path, new_plugin: NewPlugin
) -> None:
    mine = new_plugin(tmp_path / "mine", "heart", "import no_such_module_here")
    with pytest.raises(BrokenPlugin, match="no_such_module_here"):
        find_plugin("heart", settings, mine)
    with pytest.raises(BrokenPlugin, match="no_such_module_here"):
        find_plugin("heart", settings, mine.parent)  # a folder of plugins
    renamed = mine.rename(mine.with_name("my-heart"))
    with pytest.raises(BrokenPlugin, match="no_such_module_here"):
        find_plugin("heart", settings, renamed)


def test_a_folder_must_have_its_domains_name_unless_given_by_path(
    settings: Settings, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(settings.plugins_dir, "kidney")
    renamed = directory.rename(directory.with_name("nephros"))
    with pytest.raises(BrokenPlugin, match="kidney"):
        find_plugin("nephros", settings)
    assert find_plugin("kidney", settings, renamed).working.name == "kidney"


def test_an_unknown_name_suggests_those_that_look_alike(settings: Settings) -> None:
    with pytest.raises(UnknownDomain) as caught:
        find_plugin("hart", settings)
    assert caught.value.hint == "Did you mean heart?"


def test_a_path_without_a_plugin_is_an_error(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        discover(settings, [tmp_path])
