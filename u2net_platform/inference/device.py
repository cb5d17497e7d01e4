"""Where a network runs."""

from __future__ import annotations

import torch

from u2net_platform.errors import DeviceUnavailable


def choose_device(name: str) -> torch.device:
    """A torch device by name; `auto` is the GPU if there is one, else the CPU.

    Raises:
        DeviceUnavailable: the name is none of torch's, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Triton and graphs use the current one
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceUnavailable(
            f"Device {name!r} is not on this machine: {reason}", "Use --device auto, or cpu."
        ) from error
    return device
