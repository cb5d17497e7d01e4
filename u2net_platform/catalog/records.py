"""What the catalog hands out and takes in: immutable values, free of any session."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Status = Literal["running", "completed", "interrupted", "failed"]


def _as_stored(content: object) -> object:
    return json.loads(json.dumps(content, allow_nan=False))


# A tuple becomes a list at once, so that a record is equal to itself read back.
Json = Annotated[dict[str, Any], BeforeValidator(_as_stored)]


def scores_key(on: str | None) -> str:
    """Where a version's metrics have the means of test cases, or of another data set by name."""
    return "test" if on is None else f"external/{on}"


def is_evaluated(metrics: dict[str, Any]) -> bool:
    return any(key == "test" or key.startswith("external/") for key in metrics)


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Record):
    """A part of a long list; all of it by default."""

    limit: int | None = Field(default=None, ge=1)
    offset: int = Field(default=0, ge=0)


EVERYTHING = Page()
LARGEST = 2**31 - 1  # integer that every database holds


class DomainRecord(Record):
    """A domain in use: its spec as it was when last added, and where its data lies."""

    name: str
    spec: Json
    spec_digest: str
    plugin_digest: str
    source: str
    data_dir: str | None
    created_at: datetime


class RunRecord(Record):
    """A training run. `domains` are in the order they were named, `fingerprints` are by domain.

    `base_version` is the version whose backbone it started from, as `heart:3`, and `starts` those
    whose own weights its domains began with. `fold` None tested no case.
    """

    id: str
    kind: Literal["train", "adapt", "federate"]
    mode: str
    domains: tuple[str, ...] = Field(min_length=1)
    recipe: Json
    seed: int
    fold: int | None
    device: str
    directory: str
    fingerprints: dict[str, Json] = Field(default_factory=dict)
    base_version: str | None = None
    starts: dict[str, str] = Field(default_factory=dict)
    mlflow_run_id: str | None = None
    status: Status = "running"
    step: int = 0
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None

    def cases(self, domain: str, part: Literal["training", "validation", "test"]) -> list[str]:
        """Those of a domain in a part of its split; none where the run does not name them."""
        split: dict[str, list[str]] = self.fingerprints.get(domain, {}).get("split", {})
        return split.get(part, [])


class NewVersion(Record):
    """All that a version is made of; the catalog adds its number.

    `architecture` describes the domain's own part, `backbone_architecture` the shared one.
    `probe`: digests of a stored input and of what the network made of it, and on which machine.
    """

    domain: str
    backbone_digest: str
    backbone_architecture: Json
    domain_digest: str
    spec: Json
    plugin_digest: str
    plan: Json
    run_id: str
    architecture: Json
    metrics: Json = Field(default_factory=dict)
    probe: Json | None = None


class VersionRecord(NewVersion):
    """A published version."""

    id: int
    number: int
    spec_digest: str
    plan_digest: str
    created_at: datetime

    @property
    def reference(self) -> str:
        """The version's name, as `heart:3`."""
        return f"{self.domain}:{self.number}"


class Slot(Record):
    """A place in service that one version of a domain holds; a site of None means everywhere."""

    domain: str
    alias: str = "champion"
    site: str | None = None

    def __str__(self) -> str:
        return f"{self.domain}@{self.alias}" + (f"/{self.site}" if self.site else "")


class DeploymentRecord(Record):
    """A change of what is in service: who put which version in the place of which, and why.

    `version` None: nothing is in service since. `forced`: it had no test scores when deployed.
    """

    id: int
    slot: Slot
    version: str | None
    previous: str | None
    backbone_digest: str | None
    action: Literal["deploy", "rollback", "withdraw"]
    forced: bool
    actor: str
    reason: str
    created_at: datetime


class Lineage(Record):
    """A version that saw some data. `directly`: its own run did; else a run that it builds on; None
    if it may have, as none of these says so, and one does not say what it saw."""

    version: str
    run_id: str
    backbone_digest: str
    directly: bool | None
    created_at: datetime


class ContributionRecord(Record):
    """What a site sent in an attempt at a round of a federation, or why there is nothing.

    examples: its training cases. norm: Euclidean, of its update of the backbone. reason: of a
    refusal, as `NotFinite`. bytes: of the message's content, to the site and back.
    """

    site: str
    accepted: bool
    reason: str = ""
    examples: int = 0
    steps: int = 0
    norm: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


class RoundRecord(Record):
    """An attempt at a round. One below its quorum is `repeated`, or, the last one, `failed`."""

    run_id: str
    number: int
    attempt: int
    status: Literal["completed", "repeated", "failed"]
    backbone_digest: str | None
    seconds: float
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    contributions: tuple[ContributionRecord, ...] = ()
