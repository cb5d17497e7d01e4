"""What a network is built from: the architecture all domains share, and each domain's topology."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LEVELS = 6
WIDTH = 16

ArchitectureName = Literal["lean", "compact", "paper"]
Triple = tuple[
    Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]
]


class Architecture(BaseModel):
    """The part of a network's shape that its domains have in common.

    name: `paper` has dense strided convolutions and resizes every patch to `common_patch_zyx`;
        `compact` separates strided convolutions too, caps the channels at 320 and lets every
        domain keep its own geometry; `lean` besides has no norm and activation between the halves
        of a separable convolution, and enlarges volumes after the convolution that is there for
        that, not before.
    convolutions: `separable` splits a convolution between domain and backbone; `dense` leaves it
        whole in the backbone, norms included, as the paper's basic network does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ArchitectureName = "lean"
    convolutions: Literal["separable", "dense"] = "separable"
    common_patch_zyx: Triple | None = None

    @model_validator(mode="after")
    def _patch_belongs_to_paper(self) -> Self:
        if (self.common_patch_zyx is None) == (self.name == "paper"):
            raise ValueError("a common patch belongs to the paper's architecture, and to it alone")
        return self

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        cap = 512 if self.name == "paper" else 320
        return tuple(min(WIDTH << level, cap) for level in range(LEVELS))


class Topology(BaseModel):
    """The part of a network's shape that belongs to one domain.

    kernels_zyx: one kernel a level, finest first. strides_zyx: one stride a transition between
    levels; 1 along an axis that is pooled no further.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]
    kernels_zyx: tuple[Triple, ...] = Field(min_length=LEVELS, max_length=LEVELS)
    strides_zyx: tuple[Triple, ...] = Field(min_length=LEVELS - 1, max_length=LEVELS - 1)


@dataclass(frozen=True)
class Unit:
    """One convolution of the network: where it sits, and how wide it is.

    level: whose kernel it has. stride_of: the transition whose stride it takes, if any.
    kind: `separable`; `dense` 3x3x3; `point` for a dense 1x1x1.
    """

    name: str
    level: int
    c_in: int
    c_out: int
    kind: Literal["separable", "dense", "point"]
    stride_of: int | None = None


def units(architecture: Architecture) -> tuple[Unit, ...]:
    """Every convolution between the stem and the heads.

    Source: paper, section 2.3 and Fig. 2; the decoder is read off the authors' published code.
    """
    c = architecture.channels
    dense = architecture.convolutions == "dense"
    body: Literal["dense", "separable"] = "dense" if dense else "separable"
    down: Literal["dense", "separable"] = "dense" if architecture.name == "paper" else body
    found = []
    for level in range(LEVELS):
        found += [Unit(f"encoder{level}_{half}", level, c[level], c[level], body) for half in "ab"]
    for level in range(LEVELS - 1):
        below = level + 1 if architecture.name == "lean" else level
        found += [
            Unit(f"down{level}", level, c[level], c[level + 1], down, stride_of=level),
            Unit(f"up{level}", below, c[level + 1], c[level], body),
            Unit(f"merge{level}", level, 2 * c[level], c[level], body),
            Unit(f"refine{level}", level, c[level], c[level], "point" if dense else body),
        ]
    return tuple(found)
