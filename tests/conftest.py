"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from u2net_platform.settings import Settings

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty home; what reads the environment itself sees the same home."""
    for name in [name for name in os.environ if name.startswith("U2NET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    return Settings()


# Of the session, so that the variable is read before `settings` clears the environment.
@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MSD task folders; skips where it is absent."""
    folder = Path(os.environ.get("U2NET_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}; U2NET_TEST_DATA may name a folder of them")
    return folder
