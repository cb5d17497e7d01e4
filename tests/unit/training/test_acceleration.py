from __future__ import annotations

import pytest
import torch

from u2net_platform.model.network import build_network
from u2net_platform.model.topology import Architecture
from u2net_platform.training.acceleration import accelerate
from u2net_platform.training.recipe import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("assignment", "named"), [("precision=bfloat16", "bfloat16"), ("compiled=true", "compiled")]
)
def test_what_takes_no_effect_on_the_cpu_is_said(assignment: str, named: str) -> None:
    network = build_network(Architecture(), {})
    acceleration = accelerate(network, Recipe.load("default", [assignment]), CPU)
    (note,) = acceleration.notes
    assert named in note
    assert "no effect on cpu" in note
    assert acceleration.forward is network


def test_the_default_recipe_has_nothing_to_say() -> None:
    acceleration = accelerate(build_network(Architecture(), {}), Recipe.load("default"), CPU)
    assert acceleration.notes == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_bfloat16_and_compilation_take_effect_on_a_gpu() -> None:
    recipe = Recipe.load("default", ["precision=bfloat16", "compiled=true"])
    network = build_network(Architecture(), {})
    acceleration = accelerate(network, recipe, torch.device("cuda"))
    assert acceleration.notes == ()
    assert acceleration.forward is not network
    with acceleration.autocast():
        assert torch.is_autocast_enabled("cuda")
