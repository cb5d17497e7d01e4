"""That fast layers give no accuracy away: the same training with them and with torch's own.

    .venv/bin/python benchmarks/parity.py DATASET [--cycles 100] [--seeds 2] [--threads 2]

DATASET is an MSD task folder or an nnU-Net raw folder. A universal network is trained on it with
the default recipe, once with this project's channel-wise convolution and norm, once with torch's in
their place, from the same seed through the same batches. The table has the validation Dice of
both and the minutes; what differs between seeds is the noise to compare with.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.splits import splitter
from u2net_platform.data.store import TrainingDomain
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.model.network import build_network
from u2net_platform.model.norm import EPSILON, SLOPE, NormActivation
from u2net_platform.model.topology import Architecture
from u2net_platform.tracking.recorder import NullRecorder
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Options, Step, Trainer
from u2net_platform.workflows.new_domain import write_plugin
from u2net_platform.workflows.prepare import PreparedDomain, prepare_domain
from u2net_platform.workflows.train import topology_of


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plugin = DomainPlugin.load(write_plugin("domain", open_dataset(arguments.dataset), folder))
        recipe = Recipe.load("default", cycles=arguments.cycles)
        prepared = prepare_domain(
            folder / "prepared", plugin, arguments.dataset, splitter(0), recipe.batch_voxels,
            lambda _: None,
        )  # fmt: skip
        print("| seed | Dice, our layers | Dice, torch's | minutes, ours | minutes, torch's |")
        print("|---|---|---|---|---|")
        for seed in range(arguments.seeds):
            ours, our_minutes = _train(prepared, recipe, seed, folder / f"ours-{seed}")
            with torch_layers():
                theirs, their_minutes = _train(prepared, recipe, seed, folder / f"torch-{seed}")
            print(
                f"| {seed} | {ours:.3f} | {theirs:.3f} | {our_minutes:.1f} | {their_minutes:.1f} |",
                flush=True,
            )


@contextmanager
def torch_layers() -> Iterator[None]:
    """torch's own convolution, instance norm and activation in place of this project's."""

    def convolution(x: Tensor, weight: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        padding = [side // 2 for side in weight.shape[2:]]
        return F.conv3d(x, weight, stride=stride, padding=padding, groups=x.shape[1])

    def norm(self: NormActivation, x: Tensor) -> Tensor:
        normed = F.instance_norm(x, weight=self.weight, bias=self.bias, eps=EPSILON)
        # Back into the layout in which torch's convolution is fast, which its norm leaves.
        normed = normed.contiguous(memory_format=torch.channels_last_3d)
        return F.leaky_relu(normed, SLOPE)

    with (
        patch("u2net_platform.model.network.channelwise_conv3d", convolution),
        patch.object(NormActivation, "forward", norm),
    ):
        yield


def _train(
    prepared: PreparedDomain, recipe: Recipe, seed: int, folder: Path
) -> tuple[float, float]:
    """Validation Dice, and minutes."""
    name, architecture = prepared.plugin.name, Architecture()
    topology = topology_of(prepared.plugin.spec, prepared.plan, architecture)
    network = build_network(architecture, {name: topology}, seed)
    domain = TrainingDomain(prepared.plugin, prepared.plan, prepared.training, prepared.validation)
    options = Options(seed, torch.device("cpu"), 1, frozenset({"backbone", name}))
    folder.mkdir()
    started = time.perf_counter()
    trainer = Trainer(network, {name: domain}, recipe, options, folder)
    trainer.run(_Silent(), NullRecorder())
    return trainer.validate()[name], (time.perf_counter() - started) / 60


class _Silent:
    def on_note(self, text: str) -> None: ...

    def on_step(self, step: Step) -> None: ...

    def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None: ...


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
