import json

import pytest
from typer.testing import CliRunner

from u2net_platform import __version__
from u2net_platform.cli.app import app
from u2net_platform.settings import Settings
from u2net_platform.workflows import doctor
from u2net_platform.workflows.doctor import Finding


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://anna:secret@db/u2net", "postgresql://anna:***@db/u2net"),
        ("postgresql://anna:p@secret@db/u2net", "postgresql://anna:***@db/u2net"),
        ("postgresql://anna:p/secret?#@db/u2net", "postgresql://anna:***@db/u2net"),
        ("sqlite:////data/a:b@c/x.db", "sqlite:////data/a:b@c/x.db"),
        (
            "postgresql://db/u2net?user=anna&password=secret&sslpassword=secret#x",
            "postgresql://db/u2net?user=anna&password=***&sslpassword=***#x",
        ),
    ],
)
def test_info_names_version_and_places_without_passwords(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    monkeypatch.setenv("U2NET_CATALOG_URL", url)
    result = CliRunner().invoke(app, ["info", "--json"])
    data = json.loads(result.stdout)["data"]
    assert data["version"] == __version__
    assert data["settings"]["home"] == str(settings.home)
    assert data["settings"]["catalog"] == shown
    assert "secret" not in CliRunner().invoke(app, ["info"]).output


def test_weights_of_bundled_plugins_are_counted_without_a_catalog(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_CATALOG_URL", "sqlite:////dev/null/catalog.db")
    result = CliRunner().invoke(app, ["model", "parameters", "--json"])
    assert result.exit_code == 0, result.output
    assert "heart" in json.loads(result.stdout)["data"]["domains"]


@pytest.mark.parametrize(("status", "exit_code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_doctor_ends_with_1_only_if_something_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, status: str, exit_code: int
) -> None:
    finding = Finding("disk", status, "so much", "Free some space.")  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "examine", lambda _: [finding])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == exit_code
    for word in (status, "so much", "Free some space."):
        assert word in result.stdout
    document = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert document["data"]["findings"][0]["status"] == status
