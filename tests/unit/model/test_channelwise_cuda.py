"""Against torch's own convolution: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.model.channelwise import Triple

pytest.importorskip("triton", reason="needs Triton: pip install triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNELS = [(3, 3, 3), (1, 3, 3), (3, 1, 3), (1, 1, 1)]


@pytest.fixture
def convolve() -> Any:
    from u2net_platform.model.channelwise_cuda import Channelwise

    return Channelwise.apply


def volumes(
    shape: tuple[int, ...], kernel: Triple, dtype: torch.dtype
) -> tuple[Tensor, Tensor, torch.Generator]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=random).to(DEVICE, dtype)
    weight = torch.randn(shape[1], 1, *kernel, generator=random).to(DEVICE)
    return x, weight, random


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 17, 1, 3, 4), (1, 2, 19, 24, 23)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_value_and_gradients_are_those_of_torch(
    convolve: Any,
    shape: tuple[int, ...],
    kernel: Triple,
    layout: torch.memory_format,
    dtype: torch.dtype,
    error: float,
) -> None:
    x, weight, random = volumes(shape, kernel, dtype)
    x = x.to(memory_format=layout)
    ours = [x.requires_grad_(), weight.requires_grad_()]
    theirs = [tensor.detach().double().requires_grad_() for tensor in ours]
    padding = [side // 2 for side in kernel]
    found = convolve(*ours)
    expected = F.conv3d(*theirs, padding=padding, groups=shape[1])
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert torch.allclose(found.double(), expected, rtol=error, atol=error)
    above = torch.randn(expected.shape, generator=random).to(DEVICE, dtype)
    above = above.to(memory_format=layout)
    for gradient, true in zip(
        torch.autograd.grad(found, ours, above),
        torch.autograd.grad(expected, theirs, above.double()),
        strict=True,
    ):
        assert torch.allclose(gradient.double(), true, rtol=error, atol=error)


def test_the_same_volumes_give_the_same_bytes(convolve: Any) -> None:
    x, weight, _ = volumes((2, 5, 3, 4, 5), (3, 3, 3), torch.float32)
    found = []
    for _ in range(2):
        ours = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        found.append(torch.autograd.grad(convolve(*ours).square().sum(), ours))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
