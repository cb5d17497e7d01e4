"""Preparing a data set beside nnU-Net v2's preprocessor, on the same files in one run.

    .venv/bin/python -m pip install -c constraints.txt -e '.[peers]'
    .venv/bin/python benchmarks/preprocessing.py DATASET [--cases 16] [--processes 2]

DATASET is an MSD task folder or an nnU-Net raw folder. Its first cases are exported as an nnU-Net
raw data set, which both sides then read, resample to the same spacing, normalise and store with
the same number of processes. Plans and fingerprints are not timed. The ratio says how many times
faster this project is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.store import PreparedStore, prepare_cases
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.workflows.export_nnunet import export_nnunet
from u2net_platform.workflows.new_domain import write_plugin
from u2net_platform.workflows.prepare import plan_domain

NUMBER = 999  # of the data set, for nnU-Net


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        raw, preprocessed = folder / "raw", folder / "preprocessed"
        os.environ |= {
            "nnUNet_raw": str(raw),
            "nnUNet_preprocessed": str(preprocessed),
            "nnUNet_results": str(folder / "results"),
            "LOKY_MAX_CPU_COUNT": str(arguments.processes),
        }
        dataset = open_dataset(arguments.dataset)
        plugin = DomainPlugin.load(write_plugin("benchmark", dataset, folder))
        labelled = [case for case in dataset.training if case.label is not None]
        few = replace(dataset, training=tuple(labelled[: arguments.cases]), test=())
        exported = export_nnunet(plugin, few, raw, NUMBER, lambda _: None)

        # What the export holds has the domain's classes already.
        plugin = DomainPlugin.load(write_plugin("exported", open_dataset(exported), folder))
        plan = plan_domain(folder / "ours", plugin, exported, 0, 1 << 19, lambda _: None).plan
        cases = open_dataset(exported).training
        started = time.perf_counter()
        ready = prepare_cases(PreparedStore(folder / "ours"), plugin, plan, cases, lambda _: None)
        ours = time.perf_counter() - started
        voxels = sum(case.labels.size for case in ready)

        theirs = _theirs(plan.spacing_zyx_mm, arguments.processes)
        print("| data set | cases | voxels made | nnU-Net v2, s | here, s | ratio |")
        print("|---|---|---|---|---|---|")
        print(
            f"| {dataset.name} | {len(cases)} | {voxels / 1e6:.1f} M | {theirs:.1f} | {ours:.1f} "
            f"| {theirs / ours:.1f} |"
        )


def _theirs(spacing_zyx_mm: tuple[float, float, float], processes: int) -> float:
    """Seconds that nnU-Net's preprocessor takes."""
    # Imported here: it reads its folders from the environment when it is imported.
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet  # noqa: PLC0415

    nnunet.extract_fingerprints([NUMBER], num_processes=processes)
    nnunet.plan_experiments([NUMBER], overwrite_target_spacing=spacing_zyx_mm)
    started = time.perf_counter()
    nnunet.preprocess([NUMBER], configurations=("3d_fullres",), num_processes=(processes,))
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
