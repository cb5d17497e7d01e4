"""What belongs to the machine and not to a run: where things lie. Read from `U2NET_*`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PRODUCT = "u2net-platform"  # the distribution's name, which outputs carry


# `~` is the shell's; a file of variables has it as it stands, and so has a URL.
Folder = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]  # noqa: PTH111
Url = Annotated[str, AfterValidator(lambda url: re.sub("(?<=^sqlite:///)~(?=/)", _home, url))]


def _home(_: re.Match[str]) -> str:
    return os.path.expanduser("~")  # noqa: PTH111  which knows of nobody who has none


class Settings(BaseSettings):
    """The machine's settings; each field is the environment variable `U2NET_<FIELD>`.

    Everything that the platform keeps lies below `home` unless another field says otherwise.
    """

    model_config = SettingsConfigDict(
        env_prefix="U2NET_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    home: Folder = Field(default_factory=lambda: Path.home() / ".u2net")
    plugins: Folder | None = None
    catalog_url: Url | None = None
    tracking_uri: Url | None = None

    @property
    def plugins_dir(self) -> Path:
        """The user's own plugins."""
        return self.plugins or self.home / "plugins"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the catalog."""
        return self.catalog_url or _sqlite(self.catalog_file)

    @property
    def catalog_file(self) -> Path:
        """Where the catalog lies unless `catalog_url` says otherwise."""
        return self.home.resolve() / "catalog.db"

    @property
    def mlflow_uri(self) -> str:
        """Tracking URI of MLflow."""
        return self.tracking_uri or _sqlite(self.home.resolve() / "mlflow.db")

    @property
    def prepared_dir(self) -> Path:
        return self.home / "prepared"

    @property
    def weights_dir(self) -> Path:
        return self.home / "weights"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"


def _sqlite(file: Path) -> str:
    """The URL of a database, whatever its path holds: else one would begin its parameters with ?"""
    return f"sqlite:///{file}".replace("%", "%25").replace("?", "%3F")


def without_password(url: str) -> str:
    """A URL as it may be shown: no password before the host, and none among its parameters."""
    shown = re.sub(r"(://[^:/?#@]*):.*@", r"\1:***@", url)  # it may hold any character unquoted
    return re.sub(r"([?&]\w*password=)[^&#]*", r"\1***", shown, flags=re.IGNORECASE)
