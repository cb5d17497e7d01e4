"""Ignored voxels and classes that are unlabelled in some cases: from the spec to loss and score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from u2net_platform.data.augmentation import Augmenter
from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.data.patches import PatchSource, PatchStream
from u2net_platform.data.store import PreparedCase
from u2net_platform.domains.spec import IGNORED, Augmentation, DomainSpec
from u2net_platform.errors import InvalidSpec
from u2net_platform.evaluation.metrics import dice_by_class, score_case
from u2net_platform.model.losses import LOSSES, of_what_is_known

CONTENT = {
    "name": "neck",
    "description": "two organs",
    "modality": "CT",
    "channels": ["CT"],
    "labels": [{"name": "cord", "values": [1]}, {"name": "jaw", "values": [2]}],
    "ignore": [9],
    "unlabelled": [{"labels": ["jaw"], "cases": ["b_*"]}],
    "data": {"dataset": "made up", "licence": "CC0"},
}


@pytest.fixture
def spec() -> DomainSpec:
    return DomainSpec.parse(CONTENT, "here")


def problem(seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 2, 3, 4, generator=random, dtype=torch.double)
    labels = torch.randint(0, 3, (2, 2, 3, 4), generator=random).to(torch.uint8)
    return logits, labels


def test_the_spec_says_which_classes_a_case_hides(spec: DomainSpec) -> None:
    assert spec.hidden_classes("b_17") == (2,)
    assert spec.hidden_classes("a_17") == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ignore": [2]}, "ignored"),
        ({"unlabelled": [{"labels": ["nose"], "cases": ["*"]}]}, "nose"),
    ],
)
def test_a_rule_that_contradicts_the_labels_is_refused(
    change: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidSpec, match=reason):
        DomainSpec.parse(CONTENT | change, "here")


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_voxels_change_no_loss_and_get_no_gradient(name: str) -> None:
    logits, labels = problem()
    labels[:, 0] = IGNORED
    other = logits.clone()
    other[:, :, 0] += 5
    values = []
    for one in (logits, other):
        one.requires_grad_()
        loss = of_what_is_known(LOSSES[name], one, labels, None)
        loss.backward()
        assert one.grad is not None
        assert one.grad[:, :, 0].abs().max() == 0
        values.append(loss.item())
    assert values[0] == pytest.approx(values[1])
    known = LOSSES[name](logits[:, :, 1:], labels[:, 1:]).item()
    assert values[0] == pytest.approx(known)


@pytest.mark.parametrize("name", LOSSES)
def test_a_patch_of_nothing_but_ignored_voxels_is_no_loss(name: str) -> None:
    logits, labels = problem()
    logits.requires_grad_()
    loss = of_what_is_known(LOSSES[name], logits, torch.full_like(labels, IGNORED), None)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_hidden_class_takes_from_background_costs_nothing(name: str) -> None:
    logits, labels = problem()
    labels[labels == 2] = 0
    hidden = torch.tensor([[False, False, True]] * 2)
    # The same sum of background and jaw, shared out in another way.
    both = logits[:, [0, 2]].logsumexp(1)
    moved = logits.clone()
    moved[:, 0], moved[:, 2] = both + np.log(0.1), both + np.log(0.9)
    losses = [of_what_is_known(LOSSES[name], one, labels, hidden) for one in (logits, moved)]
    assert losses[0].item() == pytest.approx(losses[1].item())
    two = torch.stack([both, logits[:, 1]], dim=1)
    if name == "lovasz_focal":  # its mean is over the classes that are there
        assert losses[0].item() == pytest.approx(LOSSES[name](two, labels).item())


def test_batches_carry_what_their_cases_hide(spec: DomainSpec, tmp_path: Path) -> None:
    cases = []
    for name, value in (("a_1", 1.0), ("b_1", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "image.npy", np.full((1, 8, 8, 8), value, np.float32))
        np.save(folder / "labels.npy", np.zeros((8, 8, 8), np.uint8))
        np.savez(folder / "foreground.npz")
        cases.append(PreparedCase(name, folder))
    never = AugmentationRates(elastic=0, rotation=0, scaling=0, mirroring=0)
    source = PatchSource(cases, Augmenter(Augmentation(), never, (8, 8, 8)), 8, spec)
    batch = PatchStream({"neck": source}, seed=0)[0]
    assert batch.hidden is not None
    of_b = batch.images[:, 0, 4, 4, 4] == 2
    assert of_b.any()
    assert not of_b.all()
    assert torch.equal(batch.hidden[:, 2], of_b)
    assert not batch.hidden[:, :2].any()


def test_scores_look_at_no_ignored_voxel_and_no_hidden_class() -> None:
    reference = np.zeros((4, 4, 4), np.uint8)
    reference[1:3, 1:3, 1:3] = 1
    reference[3] = IGNORED
    prediction = (reference == 1).astype(np.uint8)
    prediction[3] = 1
    prediction[0] = 2
    scores = score_case(reference, prediction, ("cord", "jaw"), (1, 1, 1), 1.0, hidden=(2,))
    assert scores["cord"].dice == 1
    assert scores["jaw"].dice is None
    assert scores["jaw"].predicted_ml == pytest.approx(0.016)
    assert dice_by_class(reference, prediction, 3, hidden=(2,)) == {1: 1.0}
