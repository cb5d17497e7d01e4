"""Whose a weight is: the one place that reads ownership off the names of a state dict."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BACKBONE = "backbone"
DOMAINS = "domains"


def prefix_of(owner: str) -> str:
    """Prefix of an owner's weights in the network's state dict."""
    return f"{BACKBONE}." if owner == BACKBONE else f"{DOMAINS}.{owner}."


def owner_of(name: str) -> str:
    """The owner of a weight: `backbone`, or the name of a domain."""
    first, second, *_ = name.split(".")
    return BACKBONE if first == BACKBONE else second


def owned_by(state: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """An owner's weights, without the prefix."""
    prefix = prefix_of(owner)
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes; the order of the mapping does not matter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def train_only(network: nn.Module, owners: set[str]) -> list[tuple[str, nn.Parameter]]:
    """Freeze every weight that none of `owners` owns; the named rest is for the optimiser.

    A frozen weight is not handed out, so no optimiser can ever hold it.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(owner_of(name) in owners)
    return [item for item in network.named_parameters() if item[1].requires_grad]
