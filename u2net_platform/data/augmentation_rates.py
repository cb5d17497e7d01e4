"""What a recipe says of the augmentation; without what is heavy, as commands read recipes that
augment nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentationRates(BaseModel):
    """How often a patch is changed in each way. Source: the paper's published code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elastic: Probability = 0.3
    rotation: Probability = 0.3
    scaling: Probability = 0.5
    mirroring: Probability = 0.15
