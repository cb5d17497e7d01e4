"""Against torch's own instance norm and LeakyReLU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.model.norm import EPSILON, SLOPE, NormActivation

LAYOUTS = [torch.channels_last_3d, torch.contiguous_format]


def norm_of(channels: int) -> NormActivation:
    norm = NormActivation(channels).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 4, 8, 8),
        (3, 5, 3, 5, 7),
        (1, 4, 1, 2, 6),
        (2, 1, 3, 3, 2),
        (2, 3, 16, 8, 8),
    ],
)
def test_value_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    x = torch.randn(shape, dtype=torch.double).mul(3).add(7).to(memory_format=layout)
    norm = norm_of(shape[1])
    ours = [x.requires_grad_(), norm.weight, norm.bias]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    found = norm(x)
    normalised = F.instance_norm(theirs[0], weight=theirs[1], bias=theirs[2], eps=EPSILON)
    expected = F.leaky_relu(normalised, SLOPE)
    assert torch.allclose(found, expected)
    above = torch.randn(shape, dtype=torch.double)  # in the default layout, whatever x has
    for gradient, true in zip(
        torch.autograd.grad(found, ours, above),
        torch.autograd.grad(expected, theirs, above),
        strict=True,
    ):
        assert torch.allclose(gradient, true)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradients_are_those_of_small_differences(layout: torch.memory_format) -> None:
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        norm.weight, norm.bias = weight, bias  # type: ignore[assignment]
        return norm(x)  # type: ignore[no-any-return]

    norm = norm_of(2)
    x = torch.randn(2, 2, 2, 3, 3, dtype=torch.double).to(memory_format=layout).requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in norm.parameters()]
    del norm.weight, norm.bias
    assert torch.autograd.gradcheck(function, (x, *parameters))


def test_a_channels_last_volume_takes_the_fast_gradient_and_stays_channels_last() -> None:
    x = torch.randn(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d).requires_grad_()
    found = NormActivation(3)(x)
    assert type(found.grad_fn).__name__ == "_NormActivationBackward"
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (10.0, 1.0), (-5.0, 0.05)])
def test_a_channel_far_from_zero_keeps_its_digits(
    mean: float, deviation: float, layout: torch.memory_format
) -> None:
    """As the air in a CT: much of it, nearly constant, five deviations of tissue below the mean."""
    norm = norm_of(4)
    x = torch.randn(2, 4, 40, 56, 40) * deviation + mean
    expected = norm(x.double())
    found = norm.float()(x.to(memory_format=layout))
    assert (found - expected).abs().max() < 1e-4
