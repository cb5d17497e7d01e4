"""What a site's people decide: `site.toml`, and the bundles that may run there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from u2net_platform.domains.spec import list_faults
from u2net_platform.errors import InvalidSite

SITE_FILE = "site.toml"
APPROVED_FILE = "approved.txt"
SITE_NAME = r"^[a-z][a-z0-9_-]{0,62}$"


class SiteDomain(BaseModel):
    """Where a domain's data lies at the site, and whether its own weights may leave it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    weights: Literal["local", "average"] = "local"


class PrivacyRules(BaseModel):
    """clip: bound on the norm of all that a site sends in a round; 0 leaves it as it is.

    noise: standard deviation of the Gaussian noise, as a multiple of `clip`; 0 adds none.
    delta: the probability with which the bound may fail. largest_epsilon: nothing leaves the site
    once one more round would spend more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    largest_epsilon: float | None = Field(default=None, gt=0)


class SiteConfig(BaseModel):
    """`site.toml`.

    plugins: a folder of the site's own. coordinator: host:port; not needed within one process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=SITE_NAME)
    device: str = "auto"
    workers: int | None = Field(default=None, ge=0)
    plugins: Path | None = None
    coordinator: str | None = Field(default=None, pattern=r"^[^\s/]+:\d{1,5}$")
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
