"""Against the definitions, computed in another way and voxel by voxel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.model.losses import (
    LOSSES,
    dice_cross_entropy,
    focal,
    lovasz_focal,
    lovasz_softmax,
    soft_dice,
)

BATCH = (2, 3, 1, 2, 5)  # 20 voxels, 3 classes


def logits_and_labels(seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(BATCH, generator=random, dtype=torch.double)
    labels = torch.randint(0, classes, (2, 1, 2, 5), generator=random, dtype=torch.uint8)
    return logits, labels


def voxels(logits: Tensor, labels: Tensor) -> list[tuple[list[float], int]]:
    """Probabilities and class of each voxel."""
    probabilities = logits.softmax(1).movedim(1, -1).reshape(-1, logits.shape[1])
    return list(zip(probabilities.tolist(), labels.flatten().tolist(), strict=True))


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """Jaccard loss of the segmentation that mistakes exactly these voxels: a set function."""
    predicted = truth ^ wrong
    both, either = truth & predicted, truth | predicted
    return 1 - len(both) / len(either) if either else 0.0


def lovasz_by_definition(logits: Tensor, labels: Tensor) -> float:
    """Sum over voxels, worst first, of the error times what the voxel adds to the set function."""
    found, means = voxels(logits, labels), []
    for index in range(logits.shape[1]):
        truth = {n for n, (_, label) in enumerate(found) if label == index}
        if not truth:
            continue
        errors = [1 - p[index] if n in truth else p[index] for n, (p, _) in enumerate(found)]
        wrong: set[int] = set()
        total = 0.0
        for n in sorted(range(len(found)), key=lambda n: -errors[n]):
            total += errors[n] * (jaccard_loss(wrong | {n}, truth) - jaccard_loss(wrong, truth))
            wrong.add(n)
        means.append(total)
    return sum(means) / len(means)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [3, 2, 1])
def test_lovasz_softmax_is_the_lovasz_extension_of_the_jaccard_loss(
    seed: int, classes: int
) -> None:
    logits, labels = logits_and_labels(seed, classes)
    assert lovasz_softmax(logits, labels).item() == pytest.approx(
        lovasz_by_definition(logits, labels)
    )


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_softmax_of_a_sure_prediction_is_one_minus_jaccard(seed: int) -> None:
    _, labels = logits_and_labels(seed, classes=2)
    predicted = torch.randint(0, 3, labels.shape, generator=torch.Generator().manual_seed(seed))
    logits = 1e4 * F.one_hot(predicted, 3).movedim(-1, 1).double()
    losses = []
    for index in labels.unique():
        mine, true = predicted == index, labels == index
        losses.append(1 - ((mine & true).sum() / (mine | true).sum()).item())
    assert lovasz_softmax(logits, labels).item() == pytest.approx(sum(losses) / len(losses))


def test_focal_is_its_formula_at_every_voxel() -> None:
    logits, labels = logits_and_labels()
    found = voxels(logits, labels)
    expected = sum(-((1 - p[label]) ** 2) * math.log(p[label]) for p, label in found) / len(found)
    assert focal(logits, labels).item() == pytest.approx(expected)


def test_soft_dice_is_monai_s() -> None:
    losses = pytest.importorskip("monai.losses")
    logits, labels = logits_and_labels()
    theirs = losses.DiceLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    assert soft_dice(logits, labels).item() == pytest.approx(
        theirs(logits, labels[:, None].long()).item()
    )


def test_soft_dice_is_its_formula_over_the_whole_batch() -> None:
    logits, labels = logits_and_labels(1)
    found, dices = voxels(logits, labels), []
    for index in (1, 2):
        common = sum(p[index] for p, label in found if label == index)
        total = sum(p[index] + (label == index) for p, label in found)
        dices.append(2 * common / total)
    assert soft_dice(logits, labels).item() == pytest.approx(1 - sum(dices) / 2, abs=1e-5)


def test_the_two_losses_of_recipes_are_the_sums_that_they_are_named_after() -> None:
    logits, labels = logits_and_labels()
    cross_entropy = F.cross_entropy(logits, labels.long())
    assert torch.equal(
        dice_cross_entropy(logits, labels), soft_dice(logits, labels) + cross_entropy
    )
    assert torch.equal(
        lovasz_focal(logits, labels), lovasz_softmax(logits, labels) + focal(logits, labels)
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_a_class_that_the_batch_does_not_hold_gives_finite_gradients(
    name: str, size: float
) -> None:
    for classes in (2, 1):
        logits, labels = logits_and_labels(classes=classes)
        logits = (logits * size).float().requires_grad_()
        loss = LOSSES[name](logits, labels)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_costs_nothing(name: str) -> None:
    _, labels = logits_and_labels()
    logits = 1e4 * F.one_hot(labels.long(), 3).movedim(-1, 1).float()
    assert LOSSES[name](logits, labels).item() == pytest.approx(0, abs=1e-4)
