"""What a training run is asked to do; kept in its folder, so that it can go on."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from u2net_platform.catalog.records import LARGEST
from u2net_platform.files import is_held
from u2net_platform.model.topology import ArchitectureName
from u2net_platform.settings import Settings
from u2net_platform.training.recipe import Recipe

REQUEST_FILE = "run.json"
LOCK_FILE = "lock"  # held while a process works on the run
STATE_FILE = "federation.safetensors"  # a coordinator's, once the catalog has its run


class Request(BaseModel):
    """All that decides a run beside its data.

    mode: `universal` shares pointwise weights; `shared` shares everything but stems and heads;
        `independent` is `shared` with one domain. Source: paper, section 3.
    base: the version whose backbone it starts from, as `heart:3`.
    frozen: the base's backbone stays as it is. Else all goes on, and makes a new backbone.
    warm_start: what a new domain on a frozen backbone begins with: `none`, a version's adapter as
        `heart:3`, or `auto`, which takes that of the nearest domain on the backbone.
    starts: of a domain, the version whose own weights it begins with, as far as they fit; found
        when the run starts.
    learned: of a domain, the cases that those weights and the backbone have learned from; found
        then too. They are tested no more.
    plans, plugins: their digests by domain, found when the run starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    domains: tuple[str, ...] = Field(min_length=1)
    recipe: Recipe
    mode: Literal["universal", "shared", "independent"] = "universal"
    architecture: ArchitectureName = "lean"
    base: str | None = None
    frozen: bool = True
    warm_start: str = "none"
    starts: dict[str, str] = {}
    learned: dict[str, tuple[str, ...]] = {}
    seed: int = Field(default=0, ge=0, le=LARGEST)
    fold: int | None = 0
    device: str = "auto"
    workers: int | None = Field(default=None, ge=0)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    plans: dict[str, str] = {}
    plugins: dict[str, str] = {}
    mlflow_run_id: str | None = None

    @model_validator(mode="after")
    def _domains_fit_the_mode(self) -> Self:
        if len(set(self.domains)) < len(self.domains):
            raise ValueError("a domain is named twice")
        if len(self.domains) > 1 and (self.mode == "independent" or self.adapts):
            raise ValueError("an independent or adapted run has one domain")
        return self

    @property
    def adapts(self) -> bool:
        """Whether it trains a new domain on a frozen backbone."""
        return self.base is not None and self.frozen


def new_run_id() -> str:
    """When it begins (UTC), and four digits by chance: 20260131-120000-1a2b."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def is_abandoned(settings: Settings, run_id: str) -> bool:
    """Whether a run has begun below this home, and no process works on it: one that was killed
    could not say so."""
    lock = settings.runs_dir / run_id / LOCK_FILE
    return lock.exists() and not is_held(lock)


def request_of(settings: Settings, run_id: str) -> Request | None:
    """What a run was asked to do; None where its folder is not below this home, or of another
    release."""
    try:
        text = (settings.runs_dir / run_id / REQUEST_FILE).read_text("utf-8")
        return Request.model_validate_json(text)
    except (FileNotFoundError, ValidationError):
        return None
