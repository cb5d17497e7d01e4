"""Instance norm in the channels-last layout, with a gradient that is fast on the CPU.

torch's own instance norm copies a channels-last volume into the default layout and back; its group
norm of one channel a group does not, but its gradient there is several times slower than memory
allows. The gradient below is four passes over the volume.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5
LONGEST_ROW = 64  # voxels that are handled as one row


class InstanceNorm(nn.Module):
    """Affine instance norm of b c z y x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        layout = torch.channels_last_3d
        if x.device.type != "cpu" or not x.is_contiguous(memory_format=layout):
            return F.group_norm(x, x.shape[1], self.weight, self.bias, EPSILON)
        result: Tensor = _InstanceNorm.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        b, c = x.shape[:2]
        y, mean, inverse_deviation = torch.native_group_norm(
            x, weight, bias, b, c, x[0, 0].numel(), c, EPSILON
        )
        ctx.save_for_backward(x, mean, inverse_deviation, weight)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With x^ the normalised x and means over voxels:

        d/dx = weight / deviation * (g - mean(g) - x^ * mean(g * x^)), a linear combination of g,
        x and 1 with one coefficient a channel.
        """
        x, mean, inverse_deviation, weight = ctx.saved_tensors
        (b, c), voxels = x.shape[:2], x[0, 0].numel()
        fold = next(n for n in (LONGEST_ROW, 32, 16, 8, 4, 2, 1) if voxels % n == 0)
        g_rows, x_rows = _rows(gradient, fold), _rows(x, fold)
        product = g_rows * x_rows
        sum_gx = product.sum(1).view(b, fold, c).sum(1)
        of_bias = g_rows.sum(1).view(b, fold, c).sum(1)
        of_weight = (sum_gx - mean * of_bias) * inverse_deviation
        factor_g = inverse_deviation * weight
        factor_x = -factor_g * inverse_deviation * of_weight / voxels
        constant = -factor_x * mean - factor_g * of_bias / voxels
        factor_g, factor_x, constant = (
            term.repeat(1, fold).unsqueeze(1) for term in (factor_g, factor_x, constant)
        )
        of_x = torch.addcmul(constant, x_rows, factor_x, out=product).addcmul_(g_rows, factor_g)
        of_x = of_x.view(b, *x.shape[2:], c).permute(0, 4, 1, 2, 3)
        return of_x, of_weight.sum(0), of_bias.sum(0)


def _rows(x: Tensor, fold: int) -> Tensor:
    """b c z y x as b n (fold c): several voxels in one row, so that inner loops are long."""
    b, c = x.shape[:2]
    return x.permute(0, 2, 3, 4, 1).reshape(b, -1, fold * c)
