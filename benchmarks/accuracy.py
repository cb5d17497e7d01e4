"""One universal network beside a network for each domain, beside nnU-Net v2, in equal wall time.

    .venv/bin/python -m pip install -c constraints.txt -e '.[peers]'
    .venv/bin/python benchmarks/accuracy.py DATA OUTPUT [--minutes 8] [--fold 0] [--arms ...]

DATA is a folder with Task04_Hippocampus, Task02_Heart, Task25_Promise12 and Task21_HeadNeck. Each
domain has the same minutes of this machine, its GPU where it has one, on which nothing else should
run, in every arm:

- *universal*: one network of all, for as many times the minutes as there are domains;
- *independent*: a dense network of its own for each (u2net train --mode independent);
- *nnunet*: nnU-Net v2's own plan, preprocessing, network, loss, augmentation and schedule, which
  ends with the minutes;
- *new*: each domain in turn added to a frozen universal network of the others.

All train on the training part of the fold and are scored on its test part, on the images' own
grids, without mirroring; nothing but post-processing, which nnU-Net goes without, is chosen on the
validation part. Preparing and scoring are not counted.
What is done already is not done again: the script may be stopped and repeated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from running import BUNDLED, FOLDERS, once, u2net

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.splits import split_cases
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.imaging.volume import read_labels
from u2net_platform.inference.device import choose_device
from u2net_platform.settings import Settings
from u2net_platform.workflows.export_nnunet import export_nnunet
from u2net_platform.workflows.new_domain import write_plugin

ARMS = ("universal", "independent", "nnunet", "new")
NNUNET_RATE, NNUNET_POWER = 1e-2, 0.9


def main() -> None:
    study = Study(**vars(_arguments()))
    if "new" in study.arms and len(study.domains) == 1:
        sys.exit("The arm new takes two domains at least.")
    study.plugins.mkdir(parents=True, exist_ok=True)
    for domain in study.domains:
        folder = FOLDERS[domain]
        if domain not in BUNDLED and not (study.plugins / domain).exists():
            write_plugin(domain, open_dataset(study.data / folder), study.plugins)
        study.u2net("domain", "add", domain, "--data", study.data / folder)
    work = {"universal": _universal, "independent": _independent, "nnunet": _nnunet, "new": _new}
    _report({arm: dict(work[arm](study)) for arm in study.arms}, study)


@dataclass(frozen=True)
class Study:
    """What was asked for, and the runs that it takes, each made once."""

    data: Path
    output: Path
    minutes: float
    fold: int
    seed: int
    arms: tuple[str, ...]
    domains: tuple[str, ...]
    options: str

    @property
    def plugins(self) -> Path:
        return self.output / "plugins"

    def u2net(self, *command: object) -> Any:
        return u2net(self.output / "home", self.plugins, *command)

    def train(self, mode: str, *domains: str, base: str | None = None) -> list[str]:
        """The versions of a run of these domains, which have the minutes of each together."""
        frozen = ("-frozen",) if base else ()
        name = "-".join((mode, *domains, *frozen, str(self.fold), str(self.seed)))

        def work() -> Any:
            if begun := self._begun(mode, domains):
                return self.u2net("train", "--resume", begun)
            how = (
                ("adapt", *domains, "--from", base) if base else ("train", *domains, "--mode", mode)
            )
            return self.u2net(
                *how, "--minutes", self.minutes * len(domains), "--fold", self.fold,
                "--seed", self.seed, *self.options.split(),
            )  # fmt: skip

        found = once(self.output / f"{name}.json", work)["found"]
        return [f"{one['domain']}:{one['number']}" for one in found["versions"]]

    def dice(self, reference: str) -> tuple[str, dict[str, float]]:
        """A version's domain, and the mean Dice of each class over its test cases."""
        found = once(
            self.output / f"dice-{reference.replace(':', '-')}.json",
            lambda: self.u2net("evaluate", reference),
        )["found"]["mean"]
        return reference.partition(":")[0], {
            name: one["dice"] for name, one in found["classes"].items()
        }

    def _begun(self, mode: str, domains: tuple[str, ...]) -> str | None:
        """A run of this kind that was stopped."""
        catalog = Catalog.open(Settings(home=self.output / "home").database_url)
        wanted = (mode, domains, self.fold, self.seed)
        for run in catalog.runs.list():
            if run.status != "completed" and wanted == (run.mode, run.domains, run.fold, run.seed):
                return run.id
        return None


Scores = Iterator[tuple[str, dict[str, float]]]


def _universal(study: Study) -> Scores:
    yield from map(study.dice, study.train("universal", *study.domains))


def _independent(study: Study) -> Scores:
    for name in study.domains:
        yield from map(study.dice, study.train("independent", name))


def _new(study: Study) -> Scores:
    for name in study.domains:
        others = (other for other in study.domains if other != name)
        base, *_ = study.train("universal", *others)
        yield from map(study.dice, study.train("universal", name, base=base))


def _nnunet(study: Study) -> Scores:
    for name in study.domains:
        number = 900 + list(FOLDERS).index(name)
        found = once(
            study.output / f"nnunet-{name}-{study.fold}.json",
            lambda name=name, number=number: _in_a_process(study, name, number),  # type: ignore[misc]
        )
        yield name, found["found"]


def _in_a_process(study: Study, name: str, number: int) -> dict[str, float]:
    """Not of a Pool: its processes may have none of their own, as nnU-Net's has."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_train_nnunet, study, name, number).result()


def _train_nnunet(study: Study, name: str, number: int) -> dict[str, float]:
    """In a process of its own, as nnU-Net reads its folders when it is imported."""
    root = study.output / f"nnunet-{study.fold}"
    processes = max(1, len(os.sched_getaffinity(0)) - 1)
    os.environ.setdefault("nnUNet_n_proc_DA", str(processes))
    os.environ |= {
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_compile": "f",
    }
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet  # noqa: PLC0415

    plugin = find_plugin(name, Settings(plugins=study.plugins)).plugin
    assert plugin is not None
    dataset = open_dataset(study.data / FOLDERS[name])
    cases = {case.id: case for case in dataset.training if case.label is not None}
    split = split_cases(list(cases), study.fold, plugin.spec.subject_of)
    parts = {"training": (*split.training, *split.validation), "test": split.test}
    chosen = {part: tuple(cases[one] for one in ids) for part, ids in parts.items()}
    raw = root / "raw" / f"Dataset{number:03d}_{name.capitalize()}"
    if not raw.exists():
        some = replace(dataset, training=chosen["training"], test=chosen["test"])
        export_nnunet(plugin, some, root / "raw", number, lambda _: None)
    nnunet.extract_fingerprints([number], num_processes=processes)
    nnunet.plan_experiments([number])
    nnunet.preprocess([number], configurations=("3d_fullres",), num_processes=(processes,))
    preprocessed = root / "preprocessed" / raw.name
    folds = [{"train": list(split.training), "val": list(split.validation)}]
    (preprocessed / "splits_final.json").write_text(json.dumps(folds))
    trainer = _trained_nnunet(preprocessed, study.minutes)
    return _scored_nnunet(trainer, plugin.spec.class_names, raw, split.test, root / "found" / name)


def _trained_nnunet(preprocessed: Path, minutes: float) -> Any:
    """nnU-Net's own steps; its schedule of the rate ends with the minutes, not with epochs."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415

    torch.set_num_threads(2)
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text("utf-8"))
    description = json.loads((preprocessed / "dataset.json").read_text("utf-8"))
    trainer = nnUNetTrainer(
        plans | {"continue_training": False}, "3d_fullres", 0, description,
        device=choose_device("auto"),
    )  # fmt: skip
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batches, started, steps = trainer.dataloader_train, time.monotonic(), 0
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = NNUNET_RATE * (1 - done) ** NNUNET_POWER
        trainer.train_step(next(batches))
        steps += 1
    trainer.on_train_end()
    print(f"nnU-Net made {steps} steps in {minutes} minutes", flush=True)
    return trainer


def _scored_nnunet(
    trainer: Any, classes: tuple[str, ...], raw: Path, test: tuple[str, ...], found: Path
) -> dict[str, float]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=trainer.device.type == "cuda",
        device=trainer.device,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager,
        [trainer.network.state_dict()], trainer.dataset_json, "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    found.mkdir(parents=True, exist_ok=True)
    images = [sorted(map(str, (raw / "imagesTs").glob(f"{one}_*"))) for one in test]
    predictor.predict_from_files_sequential(images, [str(found / one) for one in test])
    values: dict[str, list[float]] = {name: [] for name in classes}
    for one in test:
        truth, guess = (
            read_labels(folder / f"{one}.nii.gz").array for folder in (raw / "labelsTs", found)
        )
        dice = dice_by_class(truth, np.asarray(guess), len(classes) + 1)
        for value, score in dice.items():
            values[classes[value - 1]].append(score)
    return {name: fmean(of) for name, of in values.items() if of}


def _report(scores: dict[str, dict[str, dict[str, float]]], study: Study) -> None:
    print(f"\n{study.minutes:g} minutes a domain, fold {study.fold}, seed {study.seed}.\n")
    print(f"| Dice, % | {' | '.join(scores)} |")
    print("|---" * (1 + len(scores)) + "|")
    means = {
        arm: {d: fmean(of.values()) for d, of in found.items()} for arm, found in scores.items()
    }
    for domain in study.domains:
        cells = [f"{100 * found[domain]:.1f}" for found in means.values()]
        print(f"| {domain} | {' | '.join(cells)} |")
    cells = [f"{100 * fmean(found.values()):.1f}" for found in means.values()]
    print(f"| **mean** | {' | '.join(cells)} |")
    print(f"\nBy class: {json.dumps(scores)}\nEverything lies in {study.output}.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=lambda text: Path(text).resolve())
    parser.add_argument("--minutes", type=float, default=8, help="of each domain")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--domains", nargs="+", choices=tuple(FOLDERS), default=tuple(FOLDERS))
    parser.add_argument("--options", default="", help="more of `u2net train`, in one word")
    return parser.parse_args()


if __name__ == "__main__":
    main()
