"""What coordinator and sites say to each other, to and from Flower's records.

Content is arrays, numbers and JSON; nothing is pickled. A site answers with a word where it fails:
texts of exceptions hold paths and names of cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from u2net_platform.federation.aggregation import MOST_EXAMPLES, Contribution, Refused
from u2net_platform.training.recipe import Recipe

DESCRIBE, TRAIN, FINISH = "query", "train", "train.finish"
ORDER, ANSWER, COUNTS = "order", "answer", "counts"
TEXT = "json"
LONGEST_TEXT = 1 << 20  # characters; what sites say of themselves is kept, and handed on
MOST_DOMAINS = 32  # of a site

Owners = Mapping[str, Mapping[str, Tensor]]


Kind = TypeVar("Kind", bound="Strict")
# A site makes folders of this name.
RunId = Annotated[str, Field(pattern=r"^\d{8}-\d{6}-[0-9a-f]{4}$")]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Told(Strict):
    """run: the id of the federated run. release: of the coordinator's program, which the site's has
    to be."""

    run: RunId
    release: str


class Ask(Told):
    """To all: which domains do you hold?"""

    fold: int | None
    batch_voxels: int


class Held(Strict):
    """A domain at a site. `plan`: where its weights are shared; else None."""

    spec: dict[str, Any]
    plugin_digest: str = Field(pattern="^[0-9a-f]{64}$")
    examples: int = Field(ge=1, le=MOST_EXAMPLES)
    plan: dict[str, Any] | None


class Description(Strict):
    """The answer to `Ask`, by domain."""

    domains: dict[str, Held] = Field(min_length=1, max_length=MOST_DOMAINS)


class Terms(Told):
    """To a site: what a run is, and where it is.

    confirmed: the last round whose contribution of this site was taken, 0 if none was; what the
        site keeps of its own goes on from there.
    plans: of shared domains, so that all sites see them alike.
    seconds: after so long the site gives up.
    """

    round: int = Field(ge=1)
    confirmed: int = Field(ge=0)
    cycles: int = Field(ge=1)
    recipe: Recipe
    architecture: dict[str, Any]
    seed: int
    fold: int | None
    proximal: float = Field(ge=0)
    plans: dict[str, dict[str, Any]]
    seconds: float = Field(gt=0)


class Order(Terms):
    """To a site: train this round."""

    @model_validator(mode="after")
    def _is_new(self) -> Self:
        if self.confirmed >= self.round:  # training it would begin by removing what is confirmed
            raise ValueError(f"round {self.round} is asked for, and {self.confirmed} is confirmed")
        return self


class Finish(Terms):
    """To a site: publish your domains with this backbone. `sites`: by name, the rounds of each."""

    sites: dict[str, int]


class Published(Strict):
    """The answer to `Finish`: versions at the site, and their Dice on its validation cases."""

    versions: dict[str, str]
    dice: dict[str, float]


def pack(content: Strict, owners: Owners | None = None) -> RecordDict:
    """A message's content: one object, and tensors by owner."""
    records: dict[str, Any] = {ORDER: ConfigRecord({TEXT: content.model_dump_json()})}
    for owner, tensors in (owners or {}).items():
        records[f"weights/{owner}"] = _arrays(tensors)
    return RecordDict(records)


def unpack(kind: type[Kind], content: RecordDict) -> tuple[Kind, dict[str, dict[str, Tensor]]]:
    """What `pack` made.

    Raises:
        Refused: BadMessage; the content is not of this kind.
    """
    try:
        text = str(content.config_records[ORDER][TEXT])
        if len(text) > LONGEST_TEXT:
            raise Refused("BadMessage")
        found = kind.model_validate_json(text)
        return found, _owners(content)
    except Exception as error:  # numpy alone raises EOFError, BadZipFile and MemoryError
        raise Refused("BadMessage") from error


def answer(
    held: Description, updates: Owners, examples: int, steps: int, metrics: Mapping[str, float]
) -> RecordDict:
    """A site's contribution, what it holds now, and a few numbers to watch."""
    content = pack(held, updates)
    content[COUNTS] = MetricRecord({"examples": examples, "steps": steps, **metrics})
    return content


def failure(word: str) -> RecordDict:
    """A site's answer where it cannot do what it was asked."""
    return RecordDict({ANSWER: ConfigRecord({"failed": word})})


@dataclass(frozen=True)
class Answer:
    """A site's answer to an order. metrics: numbers to watch, such as losses."""

    contribution: Contribution
    held: Description
    metrics: dict[str, float]


def answer_of(site: str, message: Message) -> Answer:
    """What `answer` made.

    Raises:
        Refused: the site failed, or its answer is none.
    """
    content = content_of(message)
    held, updates = unpack(Description, content)
    try:
        counts = dict(content.metric_records[COUNTS])
        examples, steps = counts.pop("examples"), counts.pop("steps")
        if type(examples) is not int or type(steps) is not int:
            raise Refused("WrongWeight")
        metrics = {name: float(value) for name, value in counts.items()}  # type: ignore[arg-type]
    except (KeyError, ValueError, TypeError) as error:
        raise Refused("BadMessage") from error
    # Their names become those of curves.
    if not metrics.keys() <= {"epsilon", *(f"loss/{name}" for name in held.domains)}:
        raise Refused("BadMessage")
    by_domain = {name: one.examples for name, one in held.domains.items()}
    return Answer(Contribution(site, updates, examples, steps, by_domain), held, metrics)


def content_of(message: Message) -> RecordDict:
    """The content of an answer.

    Raises:
        Refused: Unreachable, or the word that the site failed with; NotApproved, where it has not
            approved the bundle, and BadMessage, of an answer that cannot be read.
    """
    if message.has_error():  # Flower's text names the class of what was raised
        told = message.error.reason or ""
        raise Refused(next((w for w in ("NotApproved", "BadMessage") if w in told), "Unreachable"))
    if ANSWER in message.content.config_records:
        # A word of a site goes into the catalog: letters only, and few.
        text = str(message.content.config_records[ANSWER].get("failed", ""))
        raise Refused("Failed:" + "".join(char for char in text if char.isalnum())[:40])
    return message.content


def size_of(content: RecordDict) -> int:
    """Bytes of a message's content."""
    return sum(record.count_bytes() for record in content.values())


def _arrays(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    return ArrayRecord(
        {
            name: Array(tensor.detach().cpu().contiguous().numpy())
            for name, tensor in tensors.items()
        }
    )


def _owners(content: RecordDict) -> dict[str, dict[str, Tensor]]:
    return {
        key.removeprefix("weights/"): {name: _tensor(array) for name, array in record.items()}
        for key, record in content.array_records.items()
    }


def _tensor(array: Array) -> Tensor:
    # Flower reads arrays with numpy, pickles refused. A copy, as what it gives cannot be written.
    return torch.from_numpy(np.array(array.numpy()))
