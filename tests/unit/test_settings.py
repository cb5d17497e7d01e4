from pathlib import Path

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import client_of


def test_variables_that_are_empty_are_unset_and_a_tilde_is_the_users_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HOME", "PLUGINS", "CATALOG_URL", "TRACKING_URI"):
        monkeypatch.setenv(f"U2NET_{name}", "")
    unset = Settings()
    assert (unset.home, unset.plugins) == (tmp_path / ".u2net", None)
    assert unset.database_url.startswith(f"sqlite:///{tmp_path}")
    monkeypatch.setenv("U2NET_PLUGINS", "~/plugins")
    assert Settings().plugins_dir == tmp_path / "plugins"
    monkeypatch.setenv("U2NET_CATALOG_URL", "sqlite:///~/ours.db")
    monkeypatch.setenv("U2NET_TRACKING_URI", "sqlite:////srv/~/mlflow.db")
    assert Settings().database_url == f"sqlite:///{tmp_path}/ours.db"
    assert Settings().mlflow_uri == "sqlite:////srv/~/mlflow.db"
    monkeypatch.setenv("U2NET_PLUGINS", "~nobody-of-this-name/plugins")  # as a shell leaves it
    assert Settings().plugins_dir == Path("~nobody-of-this-name/plugins")


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a b#c"])
def test_a_home_of_any_name_holds_its_own_databases(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("CATALOG_URL", "TRACKING_URI"):
        monkeypatch.delenv(f"U2NET_{variable}", raising=False)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / name))
    settings = Settings()
    Catalog.open(settings.database_url)
    client_of(settings.mlflow_uri).search_experiments()
    # MLflow makes an empty folder of the name as it is in the address.
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {name}
    assert {"catalog.db", "mlflow.db"} <= {path.name for path in settings.home.iterdir()}
