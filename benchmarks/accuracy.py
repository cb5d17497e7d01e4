"""One universal network beside a network for each domain, beside nnU-Net v2, in equal wall time.

    .venv/bin/python -m pip install -c constraints.txt -e '.[peers]'
    .venv/bin/python benchmarks/accuracy.py DATA OUTPUT [--minutes 8] [--fold 0] [--arms ...]

DATA is a folder with Task04_Hippocampus, Task02_Heart, Task25_Promise12 and Task21_HeadNeck. Each
domain has the same minutes of this machine, on which nothing else should run, in every arm:

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
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from running import BUNDLED, FOLDERS, once, u2net

from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.splits import split_cases
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.imaging.volume import read_labels
from u2net_platform.settings import Settings
from u2net_platform.workflows.export_nnunet import export_nnunet
from u2net_platform.workflows.new_domain import write_plugin

ARMS = ("universal", "independent", "nnunet", "new")
NNUNET_RATE, NNUNET_POWER = 1e-2, 0.9


def main() -> None:
    arguments = _arguments()
    output: Path = arguments.output.resolve()
    plugins = output / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    for domain, folder in FOLDERS.items():
        if domain not in BUNDLED and not (plugins / domain).exists():
            write_plugin(domain, open_dataset(arguments.data / folder), plugins)
        u2net(output / "home", plugins, "domain", "add", domain, "--data", arguments.data / folder)
    scores: dict[str, dict[str, Any]] = {}
    for arm in arguments.arms:
        work = {"universal": _universal, "independent": _independent, "nnunet": _nnunet,
                "new": _new}[arm]  # fmt: skip
        scores[arm] = dict(work(arguments, output))
    _report(scores, arguments, output)


def _universal(arguments: argparse.Namespace, output: Path) -> Iterator[tuple[str, Any]]:
    names, minutes = list(FOLDERS), arguments.minutes * len(FOLDERS)
    trained = once(
        output / f"universal-{arguments.fold}.json",
        lambda: _train(arguments, output, "train", *names, "--minutes", minutes),
    )
    yield from _scored(output, trained["found"])


def _independent(arguments: argparse.Namespace, output: Path) -> Iterator[tuple[str, Any]]:
    for name in FOLDERS:
        trained = once(
            output / f"independent-{name}-{arguments.fold}.json",
            lambda name=name: _train(  # type: ignore[misc]
                arguments, output, "train", name, "--mode", "independent",
                "--minutes", arguments.minutes,
            ),
        )  # fmt: skip
        yield from _scored(output, trained["found"])


def _new(arguments: argparse.Namespace, output: Path) -> Iterator[tuple[str, Any]]:
    for name in FOLDERS:
        others = [other for other in FOLDERS if other != name]
        base = once(
            output / f"without-{name}-{arguments.fold}.json",
            lambda others=others: _train(  # type: ignore[misc]
                arguments, output, "train", *others, "--minutes", arguments.minutes * len(others)
            ),
        )
        reference = _references(base["found"])[0]
        trained = once(
            output / f"new-{name}-{arguments.fold}.json",
            lambda name=name, reference=reference: _train(  # type: ignore[misc]
                arguments, output, "adapt", name, "--from", reference,
                "--minutes", arguments.minutes,
            ),
        )  # fmt: skip
        yield from _scored(output, trained["found"])


def _train(arguments: argparse.Namespace, output: Path, *command: object) -> Any:
    place = ("--fold", arguments.fold, "--seed", arguments.seed)
    return u2net(output / "home", output / "plugins", *command, *place, *arguments.options.split())


def _references(trained: Any) -> list[str]:
    return [f"{one['domain']}:{one['number']}" for one in trained["versions"]]


def _scored(output: Path, trained: Any) -> Iterator[tuple[str, Any]]:
    """Mean Dice of each class over the test cases, by domain."""
    for reference in _references(trained):
        found = once(
            output / f"dice-{reference.replace(':', '-')}.json",
            lambda reference=reference: u2net(  # type: ignore[misc]
                output / "home", output / "plugins", "evaluate", reference
            ),
        )["found"]
        yield (
            reference.partition(":")[0],
            {name: one["dice"] for name, one in found["mean"]["classes"].items()},
        )


def _nnunet(arguments: argparse.Namespace, output: Path) -> Iterator[tuple[str, Any]]:
    for number, (name, folder) in enumerate(FOLDERS.items(), start=900):
        work = (name, arguments.data / folder, output, number, arguments.fold, arguments.minutes)
        found = once(
            output / f"nnunet-{name}-{arguments.fold}.json",
            lambda work=work: _in_a_process(*work),  # type: ignore[misc]
        )
        yield name, found["found"]


def _in_a_process(*work: Any) -> dict[str, float]:
    """Not of a Pool: its processes may have none of their own, as nnU-Net's has."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_train_nnunet, *work).result()


def _train_nnunet(
    name: str, data: Path, output: Path, number: int, fold: int, minutes: float
) -> dict[str, float]:
    """In a process of its own, as nnU-Net reads its folders when it is imported."""
    root = output / f"nnunet-{fold}"
    os.environ |= {
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_compile": "f",
        "LOKY_MAX_CPU_COUNT": "2",
    }
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet  # noqa: PLC0415

    plugin = find_plugin(name, Settings(), _plugins(name, output)).plugin
    assert plugin is not None
    dataset = open_dataset(data)
    cases = {case.id: case for case in dataset.training if case.label is not None}
    split = split_cases(list(cases), fold)
    parts = {"training": (*split.training, *split.validation), "test": split.test}
    chosen = {part: tuple(cases[one] for one in ids) for part, ids in parts.items()}
    raw = root / "raw" / f"Dataset{number:03d}_{name.capitalize()}"
    if not raw.exists():
        some = replace(dataset, training=chosen["training"], test=chosen["test"])
        export_nnunet(plugin, some, root / "raw", number, lambda _: None)
    nnunet.extract_fingerprints([number], num_processes=2)
    nnunet.plan_experiments([number])
    nnunet.preprocess([number], configurations=("3d_fullres",), num_processes=(2,))
    preprocessed = root / "preprocessed" / raw.name
    folds = [{"train": list(split.training), "val": list(split.validation)}]
    (preprocessed / "splits_final.json").write_text(json.dumps(folds))
    trainer = _trained_nnunet(preprocessed, minutes)
    return _scored_nnunet(trainer, plugin.spec.class_names, raw, split.test, root / "found" / name)


def _plugins(name: str, output: Path) -> Path | None:
    return None if name in BUNDLED else output / "plugins"


def _trained_nnunet(preprocessed: Path, minutes: float) -> Any:
    """nnU-Net's own steps; its schedule of the rate ends with the minutes, not with epochs."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415

    torch.set_num_threads(2)
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text("utf-8"))
    description = json.loads((preprocessed / "dataset.json").read_text("utf-8"))
    trainer = nnUNetTrainer(
        plans | {"continue_training": False}, "3d_fullres", 0, description,
        device=torch.device("cpu"),
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
        perform_everything_on_device=False,
        device=torch.device("cpu"),
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


def _report(scores: dict[str, dict[str, Any]], arguments: argparse.Namespace, output: Path) -> None:
    print(
        f"\n{arguments.minutes:g} minutes a domain, fold {arguments.fold}, seed {arguments.seed}.\n"
    )
    print(f"| Dice, % | {' | '.join(scores)} |")
    print("|---" * (1 + len(scores)) + "|")
    means = {
        arm: {d: fmean(of.values()) for d, of in found.items()} for arm, found in scores.items()
    }
    for domain in FOLDERS:
        cells = [f"{100 * found[domain]:.1f}" for found in means.values()]
        print(f"| {domain} | {' | '.join(cells)} |")
    cells = [f"{100 * fmean(found.values()):.1f}" for found in means.values()]
    print(f"| **mean** | {' | '.join(cells)} |")
    print(f"\nBy class: {json.dumps(scores)}\nEverything lies in {output}.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=8, help="of each domain")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--options", default="", help="more of `u2net train`, in one word")
    return parser.parse_args()


if __name__ == "__main__":
    main()
