"""Against torch's own convolution, whose gradients are right and slow."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from u2net_platform.model import channelwise
from u2net_platform.model.channelwise import FEW_VALUES, channelwise_conv3d

TRIPLES_OF_KERNELS = list(product((1, 3), repeat=3))
TRIPLES_OF_STRIDES = list(product((1, 2), repeat=3))
SHAPES = [(2, 3, 5, 7, 6), (1, 2, 1, 5, 4), (3, 1, 2, 3, 5), (3, 2, 1, 1, 1)]


@pytest.fixture(autouse=True)
def none_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes here are small, and their gradients are ours all the same."""
    monkeypatch.setattr(channelwise, "FEW_VALUES", 0)


@pytest.mark.parametrize("kernel", TRIPLES_OF_KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_value_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], kernel: tuple[int, int, int], layout: torch.memory_format
) -> None:
    random = torch.Generator().manual_seed(0)
    channels, padding = shape[1], [side // 2 for side in kernel]
    for stride in TRIPLES_OF_STRIDES:
        x = torch.randn(shape, generator=random, dtype=torch.double).to(memory_format=layout)
        weight = torch.randn(channels, 1, *kernel, generator=random, dtype=torch.double)
        ours = [x.requires_grad_(), weight.requires_grad_()]
        theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
        expected = F.conv3d(*theirs, stride=stride, padding=padding, groups=channels)
        found = channelwise_conv3d(*ours, stride)
        assert torch.allclose(found, expected)
        above = torch.randn(expected.shape, generator=random, dtype=torch.double)
        for gradient, true in zip(
            torch.autograd.grad(found, ours, above),
            torch.autograd.grad(expected, theirs, above),
            strict=True,
        ):
            assert torch.allclose(gradient, true), (stride, kernel)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kernel", TRIPLES_OF_KERNELS)
def test_single_precision_takes_torch_s_fast_kernels_to_the_same_gradients(
    kernel: tuple[int, int, int],
) -> None:
    random = torch.Generator().manual_seed(0)
    for stride in ((1, 1, 1), (2, 2, 2), (1, 2, 2)):
        x = torch.randn(2, 4, 5, 6, 7, generator=random)
        x = x.to(memory_format=torch.channels_last_3d).requires_grad_()
        weight = torch.randn(4, 1, *kernel, generator=random, requires_grad=True)
        found = channelwise_conv3d(x, weight, stride)
        gradients = torch.autograd.grad(found.square().sum(), (x, weight))
        exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
        padding = [side // 2 for side in kernel]
        expected = F.conv3d(*exact, stride=stride, padding=padding, groups=4)
        for gradient, true in zip(
            gradients, torch.autograd.grad(expected.square().sum(), exact), strict=True
        ):
            assert torch.allclose(gradient.double(), true, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_the_gradients_are_those_of_small_differences(stride: tuple[int, int, int]) -> None:
    x = torch.randn(2, 2, 3, 4, 3, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *of: channelwise_conv3d(*of, stride), (x, weight))


def test_no_gradient_is_computed_where_none_is_asked_for() -> None:
    x, weight = torch.randn(1, 2, 3, 4, 3), torch.randn(2, 1, 3, 3, 3, requires_grad=True)
    channelwise_conv3d(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_a_volume_without_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="b c z y x"):
        channelwise_conv3d(torch.randn(2, 3, 4, 3), torch.randn(2, 1, 3, 3, 3))


def test_a_small_strided_convolution_is_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channelwise, "FEW_VALUES", FEW_VALUES)
    x, weight = torch.randn(1, 2, 4, 4, 4), torch.randn(2, 1, 3, 3, 3, requires_grad=True)
    names = [
        type(channelwise_conv3d(x, weight, stride).grad_fn).__name__
        for stride in ((1, 1, 1), (2, 2, 2))
    ]
    assert names == ["_ChannelwiseBackward", "ConvolutionBackward0"]
