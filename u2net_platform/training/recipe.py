"""What is chosen for a run: a small declared object, bundled or read from a TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.domains.spec import list_faults
from u2net_platform.errors import InvalidRecipe

Positive = Annotated[float, Field(gt=0)]
BUNDLED = ("default", "paper")


class Recipe(BaseModel):
    """How to train. A cycle is as many steps as there are domains.

    dense_learning_rate: in place of the other where convolutions are dense (shared, independent):
        there a weight is one of many times as many, so smaller, and wants smaller steps.
    clip_norm: largest norm of a step's gradient; with None, for which a file has inf, any.
    batch_voxels: bound on the voxels of a batch, from which the plan derives patch and batch size.
    temperature: with T, a domain's share of steps is proportional to (its training cases) **
    (1 / T); with None, for which a file has inf, the domains take turns.
    precision: bfloat16 takes effect on a GPU alone; elsewhere the run says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    loss: Literal["lovasz_focal", "dice_cross_entropy"]
    optimiser: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    dense_learning_rate: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["plateau", "polynomial"]
    cycles: Annotated[int, Field(ge=1)]
    clip_norm: Positive | None = None
    batch_voxels: Annotated[int, Field(ge=1024)]
    # Below, a share may be larger than any float.
    temperature: Annotated[float, Field(ge=0.1)] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    augmentation: AugmentationRates = AugmentationRates()

    @classmethod
    def load(cls, source: str, assignments: Sequence[str] = (), **overrides: Any) -> Recipe:
        """A bundled recipe by name, or one from a TOML file; overrides that are None do nothing.

        A learning rate that is given is that of dense networks too.
        assignments: more overrides as text, such as `temperature=2` or `augmentation.elastic=0`.

        Raises:
            InvalidRecipe: there is none, or it breaks the schema; all faults at once.
        """
        changes = {key: value for key, value in overrides.items() if value is not None}
        content = _content(source) | changes
        for text in assignments:
            _assign(content, text)
        given = {*changes, *(text.partition("=")[0].strip() for text in assignments)}
        if "learning_rate" in given and "dense_learning_rate" not in given:
            content.pop("dense_learning_rate", None)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InvalidRecipe(
                f"the recipe {source} has faults:\n{list_faults(error)}",
                f"Correct each of them. The keys are: {', '.join(_keys(cls))}.",
            ) from error

    @field_validator("temperature", "clip_norm", mode="before")
    @classmethod
    def _without(cls, value: object) -> object:
        """JSON knows no infinity, and neither does TOML know null."""
        return None if value == math.inf else value

    def suited_to(self, convolutions: Literal["separable", "dense"]) -> Recipe:
        """The recipe with the learning rate of such networks."""
        if convolutions == "separable" or self.dense_learning_rate is None:
            return self
        return self.model_copy(update={"learning_rate": self.dense_learning_rate})


def _keys(model: type[BaseModel], table: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{table}{name}.")
        else:
            yield f"{table}{name}"


def _assign(content: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not key:
        raise InvalidRecipe(f"{text!r} sets nothing", "Write KEY=VALUE, as temperature=2.")
    for name in tables:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise InvalidRecipe(f"{name} of {text!r} is no table", "Name a key of the recipe.")
    try:
        content[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        content[key] = value.strip()  # a bare word


def _content(source: str) -> dict[str, Any]:
    if source in BUNDLED:
        text = files(__package__).joinpath("recipes", f"{source}.toml").read_text("utf-8")
        return tomllib.loads(text)
    try:
        return tomllib.loads(Path(source).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRecipe(
            f"the recipe {source} cannot be read: {error}",
            f"Name a TOML file, or one of {', '.join(BUNDLED)}.",
        ) from error
