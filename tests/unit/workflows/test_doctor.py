import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.tables import VERSION_TABLE
from u2net_platform.settings import Settings
from u2net_platform.workflows import doctor
from u2net_platform.workflows.doctor import Finding, examine


def findings_on(subject: str, settings: Settings) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.subject == subject]


def test_a_new_home_is_fit_to_work_and_gets_no_catalog_yet(settings: Settings) -> None:
    findings = {finding.subject: finding for finding in examine(settings)}
    assert {"python", "devices", "disk", "catalog", "tracking", "plugins"} <= set(findings)
    assert findings["catalog"].status == "ok"
    assert not (settings.home / "catalog.db").exists()


def test_a_database_that_is_no_catalog_fails_as_every_command_does(
    settings: Settings, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE others (id INTEGER)")
    url = f"sqlite:///{tmp_path}/other.db"
    (finding,) = findings_on("catalog", settings.model_copy(update={"catalog_url": url}))
    assert (finding.status, "u2net catalog upgrade" in finding.remedy) == ("fail", True)


def test_a_catalog_of_another_revision_fails_with_its_remedy(settings: Settings) -> None:
    Catalog.open(settings.database_url)
    with sqlite3.connect(settings.home / "catalog.db") as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
    (finding,) = findings_on("catalog", settings)
    assert finding.status == "fail"
    assert "u2net catalog upgrade" in finding.remedy


def test_a_catalog_of_a_later_release_asks_for_that_release(settings: Settings) -> None:
    Catalog.open(settings.database_url)
    with sqlite3.connect(settings.home / "catalog.db") as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    (finding,) = findings_on("catalog", settings)
    assert (finding.status, finding.remedy.split(":")[0]) == ("fail", "Upgrade the program")


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("nonsense", "fail"),
        ("http://", "fail"),
        ("ftp://me:secret@host", "fail"),
        ("sqlite:mlflow.db", "fail"),
        ("https://host:5000", "ok"),
        ("postgresql+psycopg://me:secret@host/name", "ok"),
        (None, "ok"),
    ],
)
def test_a_tracking_uri_that_is_none_fails_and_its_password_is_not_told(
    settings: Settings, uri: str | None, status: str
) -> None:
    (finding,) = findings_on("tracking", settings.model_copy(update={"tracking_uri": uri}))
    assert finding.status == status
    assert "secret" not in finding.detail


def test_a_broken_plugin_is_a_warning_that_names_it(
    settings: Settings, new_plugin: Callable[..., Path]
) -> None:
    new_plugin(settings.plugins_dir, "kidney", "import no_such_module_here")
    warnings = [one for one in findings_on("plugins", settings) if one.status == "warn"]
    assert [one.detail.split(":")[0] for one in warnings] == ["kidney"]


def test_a_full_disk_fails(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NO_DISK_GIB", 10**9)
    monkeypatch.setattr(doctor, "LOW_DISK_GIB", 10**9)
    assert findings_on("disk", settings)[0].status == "fail"


def test_a_file_in_place_of_the_home_fails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    findings = findings_on("disk", settings.model_copy(update={"home": tmp_path / "file"}))
    assert [one.status for one in findings][-1] == "fail"


def test_little_shared_memory_as_in_a_container_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    for low, status in ((0.0, "ok"), (1e9, "warn")):
        monkeypatch.setattr(doctor, "LOW_SHARED_GIB", low)
        (finding,) = findings_on("shared memory", settings)
        assert (finding.status, "--workers 0" in finding.remedy) == (status, status == "warn")
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")  # not every system has it
    assert findings_on("shared memory", settings) == []


def test_a_check_that_breaks_is_a_finding(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Settings) -> list[Finding]:
        raise ImportError("libcudart.so")

    monkeypatch.setattr(doctor, "_devices", broken)
    (finding,) = findings_on("broken", settings)
    assert finding.status == "fail"
    assert "libcudart.so" in finding.detail
