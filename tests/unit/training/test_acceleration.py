from __future__ import annotations

import pytest
import torch
from torch import Tensor

from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.training.acceleration import accelerate, workers_for
from u2net_platform.training.recipe import Recipe

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_what_takes_no_effect_on_the_cpu_is_said() -> None:
    network = build_network(Architecture(), {})
    acceleration = accelerate(network, Recipe.load("default", ["precision=bfloat16"]), CPU)
    (note,) = acceleration.notes
    assert "bfloat16 takes no effect on cpu" in note
    assert acceleration.forward is network


def test_the_default_recipe_has_nothing_to_say() -> None:
    acceleration = accelerate(build_network(Architecture(), {}), Recipe.load("default"), CPU)
    assert acceleration.notes == ()


def test_a_gpu_is_fed_by_all_cores_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 16)
    assert workers_for(CPU) == 1
    assert workers_for(CUDA) == 15
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    assert workers_for(CUDA) == 1


@needs_cuda
def test_bfloat16_takes_effect_on_a_gpu() -> None:
    recipe = Recipe.load("default", ["precision=bfloat16"])
    acceleration = accelerate(_of_two_domains(), recipe, CUDA)
    assert acceleration.notes == ()
    with acceleration.autocast():
        assert torch.is_autocast_enabled("cuda")
        assert acceleration.forward(_batch(0), domain="a").dtype == torch.bfloat16


@needs_cuda
def test_steps_of_all_domains_are_the_same_as_graphs() -> None:
    network = _of_two_domains()
    graphs = accelerate(network, Recipe.load("default"), CUDA).forward
    for turn in range(3):
        for domain in "ab":
            x = _batch(turn)
            found = _gradients(network, graphs(x, domain=domain))
            expected = _gradients(network, network(x, domain=domain))
            assert found.keys() == expected.keys()
            for name, gradient in expected.items():
                largest = gradient.abs().max()
                assert largest > 0, name
                assert torch.allclose(found[name], gradient, rtol=1e-2, atol=1e-2 * largest), name
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01 * torch.sign(parameter))


def _of_two_domains() -> UniversalUNet:
    topologies = {
        name: Topology(
            in_channels=1,
            classes=classes,
            kernels_zyx=((3, 3, 3),) * 6,
            strides_zyx=((2, 2, 2),) * 2 + ((1, 1, 1),) * 3,
        )
        for name, classes in (("a", 2), ("b", 3))
    }
    return build_network(Architecture(), topologies).to(CUDA)


def _batch(seed: int) -> Tensor:
    return torch.randn(2, 1, 12, 16, 12, generator=torch.Generator().manual_seed(seed)).to(CUDA)


def _gradients(network: UniversalUNet, logits: Tensor) -> dict[str, Tensor]:
    network.zero_grad(set_to_none=True)
    logits.square().mean().backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
