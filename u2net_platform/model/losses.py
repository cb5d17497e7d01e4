"""What training minimises. Logits are b k ..., labels b ... with classes 0..k-1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.domains.spec import IGNORED

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


def of_what_is_known(loss: Loss, logits: Tensor, labels: Tensor, hidden: Tensor | None) -> Tensor:
    """A loss that asks nothing about what nobody has labelled.

    labels: voxels of value `IGNORED` are left out. hidden: b k, true for classes that are
    unlabelled in a sample; there their probability counts as background's, for what is not drawn
    may be either.

    Source: Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation, Medical Image Analysis 70 (2021), section 3.2.
    """
    if hidden is not None:
        logits = _merged_into_background(logits, hidden)
    known = labels != IGNORED
    if known.all():
        return loss(logits, labels)
    if not known.any():
        return 0.0 * logits.sum()
    return loss(logits.movedim(1, -1)[known].T[None], labels[known][None])


def _merged_into_background(logits: Tensor, hidden: Tensor) -> Tensor:
    """Logits whose softmax has the sum of background and hidden classes as background."""
    none = torch.finfo(logits.dtype).min
    mask = hidden.view(*hidden.shape, *(1,) * (logits.dim() - 2))
    background = torch.zeros_like(mask)
    background[:, 0] = True
    merged = logits.masked_fill(~(mask | background), none).logsumexp(1, keepdim=True)
    return torch.where(background, merged, logits.masked_fill(mask, none))


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"lovasz_focal": lovasz_focal, "dice_cross_entropy": dice_cross_entropy}
)
