"""Peak memory of predicting a large CT, within a budget, beside nnU-Net v2's predictor.

    .venv/bin/python -m pip install -c constraints.txt -e '.[peers]'
    .venv/bin/python benchmarks/memory.py [--shape 800 512 512] [--memory 4GiB] [--repeats 1]
        [--ours-only]

The CT is made here: a body of noise in air. Each side runs in a process of its own, from file to
file, in steps of half a patch without mirroring; what is measured is the most main memory that the
process ever held, of several runs the lowest and the highest. Both sides have one pointwise
convolution for a network, as nnU-Net's own takes hours here; one row more is this project with its
real network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunet import Shared, share
from prediction import predict_ours, predict_theirs
from torch import Tensor, nn

from u2net_platform.cli.run_options import bytes_of
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import LabelVolume, write_array, write_labels

SPACING_ZYX_MM = (1.0, 0.8, 0.8)
PLANNED_ZYX_MM = (1.0, 0.75, 0.75)
AXIAL = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)  # as NIfTI's usual RAS is in LPS


class Pointwise(nn.Module):
    """Stands for a network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, classes, 1)

    def forward(self, x: Tensor, domain: str = "") -> Any:  # noqa: ARG002
        return self.layer(x)


def main() -> None:
    arguments = _arguments()
    shape = tuple(arguments.shape)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _make(folder / "ct.nii.gz", shape)
        shared = _plan(folder)
        rows = [("here", True), ("here, real network", False)]
        if not arguments.ours_only:
            rows.append(("nnU-Net v2", True))
        print(f"| CT of {' x '.join(map(str, shape))} | peak, GiB | minutes |")
        print("|---|---|---|")
        for name, pointwise in rows:
            started, peaks = time.perf_counter(), []
            work = (name, shared, folder, bytes_of(arguments.memory), pointwise)
            for _ in range(arguments.repeats):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    peaks.append(pool.apply(_peak, work) / 2**30)
            minutes = (time.perf_counter() - started) / 60 / len(peaks)
            print(f"| {name} | {min(peaks):.2f} to {max(peaks):.2f} | {minutes:.1f} |", flush=True)
        print(f"\nAllowed here: {arguments.memory}.")


def _peak(name: str, shared: Shared, folder: Path, memory: int, pointwise: bool) -> int:
    """In a process of its own."""
    torch.set_num_threads(2)
    network = Pointwise(shared.plugin.spec.classes) if pointwise else None
    if name.startswith("here"):
        predict_ours(shared, [folder / "ct.nii.gz"], folder, network, memory)
    else:
        predict_theirs(shared, [folder / "ct.nii.gz"], folder, network)
    # Not ru_maxrss: that begins with what the parent held when it made this process.
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _make(path: Path, shape: tuple[int, ...]) -> None:
    """A cylinder of noise, a quarter as wide as the image, in air."""
    random = np.random.default_rng(0)
    _, y, x = (np.linspace(-1, 1, side) for side in shape)
    body = (y[:, None] ** 2 + x**2) < 0.0625
    array = np.full(shape, -1000, np.int16)
    for plane in array:
        plane[body] = random.normal(40, 60, int(body.sum()))
    write_array(path, array[None], _grid(shape, SPACING_ZYX_MM))


def _plan(folder: Path) -> Shared:
    """Both sides plan on a few small cases of the same kind."""
    source = folder / "Task99_Phantom"
    cases = []
    for number in range(5):
        shape = (160, 192, 192)
        array = np.random.default_rng(number).normal(40, 60, shape).astype(np.int16)
        labels = np.zeros(shape, np.uint8)
        labels[60:100, 60:130, 60:130] = 1
        array[labels == 1] += 100
        pair = {"image": f"imagesTr/{number}.nii.gz", "label": f"labelsTr/{number}.nii.gz"}
        for part in ("imagesTr", "labelsTr"):
            (source / part).mkdir(parents=True, exist_ok=True)
        grid = _grid(shape, PLANNED_ZYX_MM)
        write_array(source / pair["image"], array[None], grid)
        write_labels(source / pair["label"], LabelVolume(labels, grid), ("organ",))
        (source / pair["label"].replace(".nii.gz", ".labels.json")).unlink()
        cases.append(pair)
    description = {
        "name": "Phantom",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ"},
        "numTraining": len(cases),
        "training": cases,
        "test": [],
    }
    (source / "dataset.json").write_text(json.dumps(description))
    return share(source, len(cases), folder, 2, batch_voxels=1 << 18)


def _grid(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> Grid:
    z, y, x = shape
    return Grid((z, y, x), spacing, (0.0, 0.0, 0.0), AXIAL)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[800, 512, 512], help="z y x")
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--ours-only", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
