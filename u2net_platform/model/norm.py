"""Instance norm and LeakyReLU in the channels-last layout, with a gradient that is fast on the CPU.

torch's own instance norm copies a channels-last volume into the default layout and back. Its batch
norm does not on the CPU, and of one volume at a time it is the same; a volume then stays in the
cache from the activation's gradient to the norm's. Means and variances are torch's plain ones. Its
batch norm sums them one voxel after the other, and its group norm subtracts the square of a mean
from the mean of squares: where a channel is far from zero, as in a CT with much air, digits are
lost. On CUDA it is Triton's, see there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from u2net_platform.model.device import in_triton

EPSILON = 1e-5
SLOPE = 0.01


class NormActivation(nn.Module):
    """Affine instance norm of b c z y x, then LeakyReLU with slope 0.01.

    Source: paper, section 2.2 and Fig. 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor
        if in_triton(x):
            from u2net_platform.model import norm_cuda

            own = (self.weight, self.bias)
            result = norm_cuda.NormActivation.apply(x, *own, EPSILON, SLOPE)  # type: ignore[no-untyped-call]
        elif x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last_3d):
            result = _NormActivation.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        else:
            result = F.group_norm(x, x.shape[1], self.weight, self.bias, EPSILON)
            result = F.leaky_relu_(result, SLOPE)
        return result


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = torch.empty_like(x)
        rows, scratch = (one.permute(0, 2, 3, 4, 1).flatten(1, 3) for one in (x, y))  # b n c
        means = rows.mean(1)
        variances = torch.sub(rows, means[:, None], out=scratch).square_().mean(1)
        inverse_deviations = torch.rsqrt(variances + EPSILON)
        none = x.new_empty(0)
        for k in range(len(x)):
            one = slice(k, k + 1)
            torch.ops.aten.native_batch_norm.out(
                x[one], weight, bias, means[k], variances[k], False, 0.0, EPSILON,
                out=y[one], save_mean=none, save_invstd=none,
            )  # fmt: skip
        y = F.leaky_relu_(y, SLOPE)
        ctx.save_for_backward(x, y, means, inverse_deviations, weight)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, means, inverse_deviations, weight = ctx.saved_tensors
        of_x = torch.empty_like(x)
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for k in range(len(x)):
            one = slice(k, k + 1)
            through = torch.ops.aten.leaky_relu_backward(gradient[one], y[one], SLOPE, True)
            through = through.contiguous(memory_format=torch.channels_last_3d)
            of_x[one], more_weight, more_bias = torch.ops.aten.native_batch_norm_backward(
                through, x[one], weight, None, None, means[k], inverse_deviations[k],
                True, EPSILON, [True, True, True],
            )  # fmt: skip
            of_weight += more_weight
            of_bias += more_bias
        return of_x, of_weight, of_bias
