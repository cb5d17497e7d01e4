"""Against torch's own instance norm: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from u2net_platform.model.norm import EPSILON, SLOPE

pytest.importorskip("triton", reason="needs Triton: pip install triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The last two are divided into parts: three; and so many voxels that each part reads twice.
SHAPES = [(2, 3, 4, 5, 6), (3, 1, 1, 1, 3), (1, 17, 3, 8, 8), (2, 2, 20, 30, 8), (1, 1, 52, 52, 52)]
LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


@pytest.fixture
def norm() -> Any:
    from u2net_platform.model.norm_cuda import NormActivation

    return lambda *tensors: NormActivation.apply(*tensors, EPSILON, SLOPE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_value_and_gradients_are_those_of_torch(
    norm: Any,
    shape: tuple[int, ...],
    layout: torch.memory_format,
    dtype: torch.dtype,
    error: float,
) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=random).mul(3).add(7).to(DEVICE, dtype)
    x = x.to(memory_format=layout)
    weight, bias = torch.randn((2, shape[1]), generator=random).to(DEVICE)
    ours = [tensor.requires_grad_() for tensor in (x, weight.clone(), bias.clone())]
    theirs = [tensor.detach().double().requires_grad_() for tensor in ours]
    found = norm(*ours)
    expected = F.leaky_relu(
        F.instance_norm(theirs[0], weight=theirs[1], bias=theirs[2], eps=EPSILON), SLOPE
    )
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected, rtol=error, atol=error)
    above = torch.randn(shape, generator=random).to(DEVICE, dtype).to(memory_format=layout)
    for gradient, true in zip(
        torch.autograd.grad(found, ours, above),
        torch.autograd.grad(expected, theirs, above.double()),
        strict=True,
    ):
        scale = true.abs().max().clamp_min(1.0)
        assert torch.allclose(gradient.double() / scale, true / scale, rtol=error, atol=error)


def test_a_channel_far_from_zero_keeps_its_digits(norm: Any) -> None:
    x = torch.randn((1, 1, 20, 30, 11), generator=torch.Generator().manual_seed(0)) + 1000
    ones, zeros = torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)
    found = norm(x.to(DEVICE), ones, zeros).cpu()
    expected = F.leaky_relu(F.instance_norm(x.double(), eps=EPSILON), SLOPE)
    assert torch.allclose(found.double(), expected, atol=1e-3)


def test_the_same_volumes_give_the_same_bytes(norm: Any) -> None:
    x = torch.randn((2, 3, 20, 30, 11), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    found = []
    for _ in range(2):
        ours = [x.clone().requires_grad_(), *torch.ones((2, 3), device=DEVICE).requires_grad_()]
        found.append(torch.autograd.grad(norm(*ours).square().sum(), ours))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
