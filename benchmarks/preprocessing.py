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
import tempfile
import time
from pathlib import Path

from nnunet import NUMBER, share

from u2net_platform.data.store import PreparedStore, prepare_cases


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shared = share(
            arguments.dataset, arguments.cases, folder, arguments.processes, batch_voxels=1 << 19
        )
        plugin, plan, cases = shared.plugin, shared.plan, shared.dataset.training
        started = time.perf_counter()
        ready = prepare_cases(
            PreparedStore(folder / "prepared"), plugin, plan, cases, lambda _: None
        )
        ours = time.perf_counter() - started
        voxels = sum(case.labels.size for case in ready)

        theirs = _theirs(arguments.processes)
        print("| data set | cases | voxels made | nnU-Net v2, s | here, s | ratio |")
        print("|---|---|---|---|---|---|")
        print(
            f"| {arguments.dataset.name} | {len(cases)} | {voxels / 1e6:.1f} M | {theirs:.1f} "
            f"| {ours:.1f} | {theirs / ours:.1f} |"
        )


def _theirs(processes: int) -> float:
    """Seconds that nnU-Net's preprocessor takes."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet  # noqa: PLC0415

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
