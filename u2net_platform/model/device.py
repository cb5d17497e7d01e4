"""What depends on where a volume is: its layout in memory, and whose kernels compute with it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


def laid_out(x: Tensor) -> Tensor:
    """b c z y x in the layout that is fast: torch's default on CUDA, elsewhere channels-last."""
    layout = torch.contiguous_format if x.is_cuda else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


def in_triton(x: Tensor) -> bool:
    """Whether there are kernels of this project's own for it on CUDA."""
    return x.is_cuda and x.dtype != torch.double and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
