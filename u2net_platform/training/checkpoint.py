"""The whole state of a run in one file: tensors as safetensors, the rest as JSON in its header.

No pickle: what a stranger put there can be refused or misread, but never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from u2net_platform.errors import DigestMismatch, NothingToResume
from u2net_platform.files import write_bytes
from u2net_platform.model.partition import tensors_digest

STATE_KEY = "u2net"
DIGEST_KEY = "sha256"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint, atomically.

    Raises:
        DiskFull, NotWritable: the one before is still there.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    metadata = {STATE_KEY: text, DIGEST_KEY: _digest(whole, text)}
    # Not safetensors' save_file: its errors do not tell a full disk from other faults.
    write_bytes(path, save(whole, metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state as they were saved.

    Raises:
        NothingToResume: there is none yet.
        DigestMismatch: it is damaged.
    """
    if not path.exists():
        raise NothingToResume(f"{path} does not exist", "Start the run anew, without --resume.")
    try:
        with safe_open(path, framework="pt") as file:
            text, digest = (file.metadata()[key] for key in (STATE_KEY, DIGEST_KEY))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError) as error:
        raise DigestMismatch(f"{path} is damaged: {error}", "Start the run anew.") from error
    if _digest(tensors, text) != digest:
        raise DigestMismatch(f"{path} is damaged: its digest differs", "Start the run anew.")
    return tensors, json.loads(text)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.sha256(f"{tensors_digest(tensors)}{text}".encode()).hexdigest()


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def optimiser_tensors(
    optimiser: Optimizer, parameters: list[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """The optimiser's memory of each parameter, as `<parameter>/<what>`."""
    memory = optimiser.state_dict()["state"]
    return {
        f"{name}/{what}": tensor
        for index, (name, _) in enumerate(parameters)
        for what, tensor in memory.get(index, {}).items()
        if tensor is not None
    }


def restore_optimiser(
    optimiser: Optimizer,
    parameters: list[tuple[str, nn.Parameter]],
    tensors: Mapping[str, Tensor],
) -> None:
    """Give an optimiser its memory back."""
    content = optimiser.state_dict()
    content["state"] = {
        index: memory
        for index, (name, _) in enumerate(parameters)
        if (memory := without_prefix(name, tensors))
    }
    optimiser.load_state_dict(content)
