"""What training minimises. Logits are b k z y x, labels b z y x with classes 0..k-1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]

FOCUS = 2.0  # gamma of the focal loss
SMOOTH = 1e-5  # keeps a Dice of nothing against nothing at 1


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss: mean over the classes that the batch holds.

    Source: Berman et al., The Lovász-Softmax loss, CVPR 2018, section 3 and algorithm 1; taken
    over the whole batch and with background, as the paper's code does.
    """
    classes = logits.shape[1]
    probabilities = logits.softmax(1).transpose(0, 1).flatten(1)  # k n
    flat = labels.flatten().long()
    losses = []
    for index in range(classes):
        truth = (flat == index).to(probabilities.dtype)
        if truth.any():
            losses.append(_lovasz_hinge_of_errors((truth - probabilities[index]).abs(), truth))
    return torch.stack(losses).mean()


def _lovasz_hinge_of_errors(errors: Tensor, truth: Tensor) -> Tensor:
    ordered, order = errors.sort(descending=True)
    truth = truth[order]
    total = truth.sum()
    intersection = total - truth.cumsum(0)
    union = total + (1.0 - truth).cumsum(0)
    jaccard = 1.0 - intersection / union
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(ordered, steps)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy that easy voxels hardly count in. Source: Lin et al., ICCV 2017, eq. 4."""
    cross_entropy = F.cross_entropy(logits, labels.long(), reduction="none")
    return ((1.0 - torch.exp(-cross_entropy)) ** FOCUS * cross_entropy).mean()


def soft_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the Dice of probabilities, mean over foreground classes, over the whole batch.

    Source: Isensee et al., nnU-Net, Nature Methods 18 (2021), methods.
    """
    classes = logits.shape[1]
    probabilities = logits.softmax(1)
    dices = []
    for index in range(1, classes):
        truth = (labels == index).to(probabilities.dtype)
        own = probabilities[:, index]
        dices.append((2 * (own * truth).sum() + SMOOTH) / (own.sum() + truth.sum() + SMOOTH))
    return 1.0 - torch.stack(dices).mean()


def lovasz_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Source: paper, section 2.4, eq. 2."""
    return lovasz_softmax(logits, labels) + focal(logits, labels)


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Source: Isensee et al., nnU-Net, Nature Methods 18 (2021), methods."""
    return soft_dice(logits, labels) + F.cross_entropy(logits, labels.long())


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"lovasz_focal": lovasz_focal, "dice_cross_entropy": dice_cross_entropy}
)
