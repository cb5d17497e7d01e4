"""Training beside nnU-Net v2: a step of the network alone, and the whole loop with augmentation.

    .venv/bin/python -m pip install -c constraints.txt -e '.[peers]'
    .venv/bin/python benchmarks/training.py DATASET [--cases 16] [--steps 12] [--threads 2]

DATASET is an MSD task folder or an nnU-Net raw folder. All sides have nnU-Net's patch and batch of
that data set. *Step*: forward, loss, backward and optimiser on one batch, of the universal network
and of this project's dense one (mode shared), both in the channels-last layout, and of nnU-Net's
plain U-Net in that or in the default layout, whichever is faster, with one loss and optimiser for
all and without deep supervision. *Loop*: patches per second
of the two training loops as they are, each with its own augmentation in one worker process. Ratios
above 1 say how many times faster the universal network is. *Waiting* is the part of our loop in
which the next batch was not there yet.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from nnunet import NUMBER, share, their_network
from torch import Tensor, nn

from u2net_platform.data.plan import Plan
from u2net_platform.data.store import PreparedStore, TrainingDomain, prepare_cases
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.memory import keep_freed_memory
from u2net_platform.model.losses import LOSSES
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.topology import Architecture
from u2net_platform.tracking.recorder import NullRecorder
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Options, Step, Trainer
from u2net_platform.workflows.train import topology_of

CPU, CHANNELS_LAST = torch.device("cpu"), torch.channels_last_3d
WARM_UP = 2  # steps that are not timed; of the loops, as many as are made ahead
AHEAD = 6


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    keep_freed_memory(of_any_size=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shared = share(arguments.dataset, arguments.cases, folder, 2, batch_voxels=1 << 18)
        planned = shared.their_plans.get_configuration("3d_fullres")
        patch = tuple(int(side) for side in planned.patch_size)
        plan = shared.plan.model_copy(
            update={"patch_zyx": patch, "batch_size": int(planned.batch_size)}
        )
        classes, channels = shared.plugin.spec.classes, len(shared.plugin.spec.channels)
        x = torch.randn(plan.batch_size, channels, *patch)
        y = torch.randint(0, classes, (plan.batch_size, *patch), dtype=torch.uint8)
        universal, dense = (_network(shared.plugin, plan, kind) for kind in ("separable", "dense"))
        name = shared.plugin.name
        plain, plain_last = their_network(shared), their_network(shared)
        sides = {
            "universal": _Side(universal, lambda x: universal(x, domain=name)),
            "dense": _Side(dense, lambda x: dense(x, domain=name)),
            "nnU-Net": _Side(plain, plain, torch.contiguous_format),
            "nnU-Net, channels-last": _Side(plain_last, plain_last),
        }
        seconds = _in_turn(sides, x, y, arguments.repeats)
        cases = prepare_cases(
            PreparedStore(folder / "prepared"), shared.plugin, plan, shared.dataset.training,
            lambda _: None,
        )  # fmt: skip
        domain = TrainingDomain(shared.plugin, plan, cases, ())
        ours_loop, waiting = _our_loop(universal, {name: domain}, folder / "run", arguments.steps)
        their_loop = _their_loop(shared.their_plans, shared.their_description, arguments.steps)
    sides = "x".join(map(str, patch))
    print("| data set, patch, batch | universal step, s | dense / universal | nnU-Net / universal |"
          " loop here, patches/s | waiting | loop nnU-Net | ratio |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    ours = seconds["universal"]
    theirs = min(seconds["nnU-Net"], seconds["nnU-Net, channels-last"])
    print(
        f"| {arguments.dataset.name}, {sides}, {plan.batch_size} | {ours:.2f} "
        f"| {seconds['dense'] / ours:.1f} | {theirs / ours:.1f} "
        f"| {plan.batch_size / ours_loop:.2f} | {waiting:.1%} | {plan.batch_size / their_loop:.2f} "
        f"| {their_loop / ours_loop:.1f} |"
    )


def _network(plugin: DomainPlugin, plan: Plan, kind: str) -> UniversalUNet:
    architecture = Architecture().model_copy(update={"convolutions": kind})
    return build_network(architecture, {plugin.name: topology_of(plugin.spec, plan, architecture)})


@dataclass(frozen=True)
class _Side:
    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    layout: torch.memory_format = CHANNELS_LAST


def _in_turn(sides: Mapping[str, _Side], x: Tensor, y: Tensor, repeats: int) -> dict[str, float]:
    """The median seconds of a step. Sides take turns, as machines slow down for a while."""
    inputs = {name: x.to(memory_format=side.layout) for name, side in sides.items()}
    loss = LOSSES["dice_cross_entropy"]
    times: dict[str, list[float]] = {name: [] for name in sides}
    optimisers = {}
    for name, side in sides.items():
        side.network.to(memory_format=side.layout).train()  # type: ignore[call-overload]
        optimisers[name] = torch.optim.AdamW(side.network.parameters(), 1e-3, fused=True)
    for _ in range(WARM_UP + repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            optimisers[name].zero_grad(set_to_none=True)
            loss(side.forward(inputs[name]), y).backward()  # type: ignore[no-untyped-call]
            optimisers[name].step()
            times[name].append(time.perf_counter() - started)
    return {name: median(of[WARM_UP:]) for name, of in times.items()}


def _our_loop(
    network: UniversalUNet, domains: Mapping[str, TrainingDomain], folder: Path, steps: int
) -> tuple[float, float]:
    """Seconds of a step of the whole loop, and the part of them spent waiting for its batch."""

    class Clock:
        times: list[float] = []  # noqa: RUF012
        working: list[float] = []  # noqa: RUF012

        def on_note(self, text: str) -> None: ...

        def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None: ...

        def on_step(self, step: Step) -> None:
            self.times.append(time.perf_counter())
            self.working.append(step.seconds)

    recipe = Recipe.load("default", cycles=10 * (AHEAD + steps))
    owners = frozenset({"backbone", *domains})
    options = Options(seed=0, device=CPU, workers=1, owners=owners)
    folder.mkdir()
    trainer = Trainer(network, domains, recipe, options, folder)
    trainer.run(Clock(), NullRecorder(), until=AHEAD + steps)
    whole = Clock.times[-1] - Clock.times[AHEAD - 1]
    return whole / steps, 1 - sum(Clock.working[AHEAD:]) / whole


def _their_loop(plans: object, description: object, steps: int) -> float:
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet  # noqa: PLC0415
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415

    nnunet.preprocess([NUMBER], configurations=("3d_fullres",), num_processes=(2,))
    known = {**plans.plans, "continue_training": False}  # type: ignore[attr-defined]
    trainer = nnUNetTrainer(known, "3d_fullres", 0, description, device=CPU)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    times = []
    for _ in range(AHEAD + steps):
        trainer.train_step(next(trainer.dataloader_train))
        times.append(time.perf_counter())
    trainer.on_train_end()
    return (times[-1] - times[AHEAD - 1]) / steps


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12, help="of the loops")
    parser.add_argument("--repeats", type=int, default=9, help="of a step alone")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
