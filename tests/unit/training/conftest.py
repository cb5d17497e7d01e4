"""Two made-up domains of other geometry, prepared, and a trainer that is done in a second."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.data.plan import Plan, pooling
from u2net_platform.data.store import PreparedCase, TrainingDomain
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DataCard, DomainSpec, Label
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.partition import tensors_digest
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Options, Step, Trainer

MakeTrainer = Callable[..., Trainer]
SPACINGS = {"cube": (1.0, 1.0, 1.0), "slab": (4.0, 1.0, 1.0)}
PATCHES = {"cube": (8, 8, 8), "slab": (4, 16, 8)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For volumes this small a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def hangups_are_heard() -> Iterator[None]:
    """Also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@dataclass
class Spectator:
    """Notes what it sees, and may do something after a step."""

    steps: list[Step] = field(default_factory=list)
    validations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    after_step: Callable[[Step], None] = lambda step: None
    notes: list[str] = field(default_factory=list)

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, step: Step) -> None:
        self.steps.append(step)
        self.after_step(step)

    def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None:
        self.validations.append((cycle, dict(dice)))


@pytest.fixture
def spectator() -> type[Spectator]:
    return Spectator


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, TrainingDomain]:
    """`cube` has one channel and two classes, `slab` two channels, three classes, thick slices."""
    return {name: _domain(name, index, tmp_path) for index, name in enumerate(SPACINGS)}


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.load("default", cycles=4, augmentation=AugmentationRates(elastic=0))


@pytest.fixture
def make_trainer(domains: dict[str, TrainingDomain], recipe: Recipe, tmp_path: Path) -> MakeTrainer:
    """A trainer on fresh weights; `changed` are fields of the recipe."""

    def make(
        place: str = "run",
        owners: set[str] | None = None,
        seed: int = 0,
        minutes: float | None = None,
        **changed: object,
    ) -> Trainer:
        chosen = Recipe.model_validate(recipe.model_dump() | changed)
        options = Options(
            seed=seed,
            device=torch.device("cpu"),
            workers=0,
            owners=frozenset(owners or {"backbone", *domains}),
            minutes=minutes,
        )
        return Trainer(_network(domains, seed), domains, chosen, options, tmp_path / place)

    return make


@pytest.fixture
def digest() -> Callable[[Trainer], str]:
    return lambda trainer: tensors_digest(trainer.network.state_dict())


def _network(domains: Mapping[str, TrainingDomain], seed: int) -> UniversalUNet:
    topologies = {
        name: Topology(
            in_channels=len(domain.plugin.spec.channels),
            classes=domain.plugin.spec.classes,
            kernels_zyx=domain.plan.kernels_zyx,
            strides_zyx=domain.plan.strides_zyx,
        )
        for name, domain in domains.items()
    }
    return build_network(Architecture(), topologies, seed)


def _domain(name: str, index: int, root: Path) -> TrainingDomain:
    strides, kernels = pooling(PATCHES[name], SPACINGS[name])
    plan = Plan.model_validate(
        {
            "spacing_zyx_mm": SPACINGS[name],
            "shape_zyx": PATCHES[name],
            "patch_zyx": PATCHES[name],
            "strides_zyx": strides,
            "kernels_zyx": kernels,
            "batch_size": 2,
            "statistics": None,
        }
    )
    spec = DomainSpec(
        name=name,
        description="made up",
        modality="MR",
        channels=("T1", "T2")[: index + 1],
        labels=tuple(Label(name=f"organ {k}", values=(k,)) for k in range(1, index + 2)),
        data=DataCard(dataset="made up", licence="CC0"),
    )
    cases = [_case(root / "prepared" / name / str(k), index, k) for k in range(3)]
    return TrainingDomain(DomainPlugin(spec, root), plan, cases[:2], cases[2:])


def _case(directory: Path, index: int, seed: int) -> PreparedCase:
    directory.mkdir(parents=True)
    rng = np.random.default_rng([index, seed])
    labels = rng.integers(0, index + 2, (4, 12, 8), dtype=np.uint8)
    image = labels + rng.normal(0, 0.2, (index + 1, *labels.shape))
    np.save(directory / "image.npy", image.astype(np.float32))
    np.save(directory / "labels.npy", labels)
    found = {str(k): np.argwhere(labels == k).astype(np.int32) for k in range(1, index + 2)}
    np.savez(directory / "foreground.npz", **found)
    return PreparedCase(str(seed), directory)
