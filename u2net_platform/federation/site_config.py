"""What a site's people decide: `site.toml`, and the bundles that may run there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from u2net_platform.domains.spec import list_faults
from u2net_platform.errors import InvalidSite
from u2net_platform.federation.messages import SITE_NAME
from u2net_platform.federation.privacy import PrivacyRules

SITE_FILE = "site.toml"
APPROVED_FILE = "approved.txt"


class SiteDomain(BaseModel):
    """Where a domain's data lies at the site, and whether its own weights may leave it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    weights: Literal["local", "average"] = "local"


class SiteConfig(BaseModel):
    """`site.toml`.

    plugins: a folder of the site's own. coordinator: host:port; not needed within one process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=SITE_NAME)
    device: str = "auto"
    workers: int | None = Field(default=None, ge=0)
    plugins: Path | None = None
    coordinator: str | None = None
    privacy: PrivacyRules = PrivacyRules()
    domains: dict[str, SiteDomain] = {}

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises InvalidSite: with all faults at once."""
        file = directory / SITE_FILE
        try:
            return cls.parse(file.read_text("utf-8"), file)
        except OSError as error:
            raise InvalidSite(
                f"{directory} is no site: {SITE_FILE} cannot be read", "Make one: u2net site init"
            ) from error
        except UnicodeDecodeError as error:
            raise InvalidSite(f"{file} is no TOML: {error}", "Correct it.") from error

    @classmethod
    def parse(cls, text: str, file: Path) -> Self:
        """Raises InvalidSite: with all faults at once; `file` says where."""
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InvalidSite(f"{file} is no TOML: {error}", "Correct it.") from error
        except ValidationError as error:
            raise InvalidSite(
                f"{file} has faults:\n{list_faults(error)}", "Correct each of them."
            ) from error


def approved_bundles(directory: Path) -> set[str]:
    """SHA-256 of the bundles that a site's people have approved."""
    try:
        return set((directory / APPROVED_FILE).read_text("utf-8").split())
    except FileNotFoundError:
        return set()
