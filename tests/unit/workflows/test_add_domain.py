from collections.abc import Callable
from pathlib import Path

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.errors import MissingFile, UnknownDomain
from u2net_platform.settings import Settings
from u2net_platform.workflows.add_domain import (
    add_domain,
    data_dir_of,
    find_added,
    overview,
    require_trainable,
)

NewPlugin = Callable[..., Path]


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    return Catalog.open(settings.database_url)


def test_adding_again_changes_nothing(settings: Settings, catalog: Catalog) -> None:
    found = find_plugin("heart", settings)
    assert add_domain(found, catalog, None).change == "added"
    assert add_domain(found, catalog, None).change == "unchanged"


def test_a_changed_spec_is_taken_over_and_said_so(
    settings: Settings, catalog: Catalog, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(settings.plugins_dir, "kidney")
    add_domain(find_plugin("kidney", settings), catalog, None)
    spec = directory / "domain.toml"
    spec.write_text(spec.read_text().replace("made-up", "real"))
    added = add_domain(find_plugin("kidney", settings), catalog, None)
    assert added.change == "changed"
    assert catalog.domains.get("kidney").spec["description"] == "A real organ"


def test_the_data_folder_is_kept_until_another_is_given(
    settings: Settings, catalog: Catalog, msd_folder: Path
) -> None:
    found = find_plugin("heart", settings)
    with pytest.raises(MissingFile, match="heart"):
        data_dir_of("heart", catalog, None)
    add_domain(found, catalog, msd_folder)
    assert add_domain(found, catalog, None).change == "unchanged"
    assert data_dir_of("heart", catalog, None) == msd_folder
    assert data_dir_of("heart", catalog, Path("other")) == Path("other")
    require_trainable(settings, catalog, ["heart"])
    with pytest.raises(UnknownDomain, match="haert"):
        require_trainable(settings, catalog, ["heart", "haert"])
    msd_folder.rename(msd_folder.with_name("moved"))
    with pytest.raises(MissingFile, match="no longer in") as caught:
        require_trainable(settings, catalog, ["heart"])
    assert "u2net domain add heart --data DIR" in caught.value.hint


def test_a_folder_without_a_data_set_is_refused_before_anything_is_stored(
    settings: Settings, catalog: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(MissingFile):
        add_domain(find_plugin("heart", settings), catalog, tmp_path / "nothing")
    assert catalog.domains.list() == []


def test_a_plugin_that_is_gone_is_missed_where_it_was(
    settings: Settings, catalog: Catalog, tmp_path: Path, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(tmp_path / "mine", "kidney")
    add_domain(find_plugin("kidney", settings, directory), catalog, None)
    directory.rename(tmp_path / "gone")
    with pytest.raises(UnknownDomain, match=f"no longer in {directory}") as caught:
        find_added("kidney", settings, catalog)
    assert "u2net domain add kidney --path" in caught.value.hint


def test_a_plugin_from_elsewhere_is_found_again(
    settings: Settings, catalog: Catalog, tmp_path: Path, new_plugin: NewPlugin
) -> None:
    directories = [new_plugin(tmp_path / "mine", name) for name in ("kidney", "lungs")]
    for directory in directories:
        add_domain(find_plugin(directory.name, settings, directory), catalog, None)
    assert find_added("kidney", settings, catalog).working.directory == directories[0]
    rows = {row.name: row for row in overview(settings, catalog)}
    assert rows["kidney"].added
    assert rows["lungs"].fault is None
    assert not rows["heart"].added


def test_a_plugin_that_has_disappeared_is_still_listed(
    settings: Settings, catalog: Catalog, tmp_path: Path, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(tmp_path / "mine", "kidney")
    add_domain(find_plugin("kidney", settings, directory), catalog, None)
    directory.rename(tmp_path / "gone")
    (row,) = [row for row in overview(settings, catalog) if row.name == "kidney"]
    assert row.added
    assert row.fault
    with pytest.raises(UnknownDomain):
        find_added("kidney", settings, catalog)
