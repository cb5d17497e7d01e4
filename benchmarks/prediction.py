"""Prediction beside nnU-Net v2's predictor and MONAI's sliding window, in one run.

    .venv/bin/python -m pip install -c constraints.txt -e '.[peers]'
    .venv/bin/python benchmarks/prediction.py DATASET [--cases 2] [--threads 2]

DATASET is an MSD task folder or an nnU-Net raw folder. nnU-Net and this project read the files,
resample to the same spacing, go over the volume in steps of half a patch without mirroring, and
write labels; each has the network and the patch of its own plan. Weights are those that a network
begins with, which takes as long. Imports and the building of networks are in nobody's time. The
ratio says how many times faster this project is. The last columns compare the window alone, with
our network, patch and batch on both sides: seconds on the first case, prepared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from math import prod
from pathlib import Path

import torch
from nnunet import Shared, share, their_network
from torch import nn

from u2net_platform.imaging.volume import read_header, read_image
from u2net_platform.inference.predictor import Predictor
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.topology import Architecture
from u2net_platform.workflows.labeller import Labeller
from u2net_platform.workflows.predict import failure_of, predict_paths
from u2net_platform.workflows.train import topology_of

CPU, LAYOUT = torch.device("cpu"), torch.channels_last_3d


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shared = share(arguments.dataset, arguments.cases, folder, 2, arguments.batch_voxels)
        images = [case.images[0] for case in shared.dataset.training]
        (folder / "out").mkdir()
        our_network, nnunet_network = _our_network(shared), their_network(shared)
        # Loads torch's compiler, which takes about a second.
        import nnunetv2.inference.predict_from_raw_data  # noqa: F401, PLC0415

        started = time.perf_counter()
        predict_ours(shared, images, folder / "out", our_network)
        ours = time.perf_counter() - started
        started = time.perf_counter()
        predict_theirs(shared, images, folder / "out", nnunet_network)
        theirs = time.perf_counter() - started
        monai, window = _windows(shared, images[0])
        patch = shared.their_plans.get_configuration("3d_fullres").patch_size
        headers = [header for image in images if (header := read_header(image))]
    voxels = sum(header.values for header in headers)
    print(
        "| data set | cases | voxels | patch here | nnU-Net's | nnU-Net v2, s | here, s | ratio "
        "| MONAI's window, s | here, s | ratio |"
    )
    print("|---" * 11 + "|")
    print(
        f"| {arguments.dataset.name} | {len(images)} | {voxels / 1e6:.1f} M "
        f"| {_text(shared.plan.patch_zyx)} | {_text(patch)} "
        f"| {theirs:.1f} | {ours:.1f} | {theirs / ours:.1f} "
        f"| {monai:.1f} | {window:.1f} | {monai / window:.1f} |"
    )


def _our_network(shared: Shared) -> UniversalUNet:
    architecture = Architecture()
    topology = topology_of(shared.plugin.spec, shared.plan, architecture)
    return build_network(architecture, {shared.plugin.name: topology})


def predict_ours(
    shared: Shared,
    images: list[Path],
    output: Path,
    network: nn.Module | None = None,
    memory: int | None = None,
) -> None:
    """With the real network unless another is given."""
    network = network or _our_network(shared)
    labeller = Labeller(Predictor(network, shared.plugin, shared.plan, CPU, memory=memory))
    for image in images:
        target = output / f"ours-{image.name.split('.')[0]}.nii.gz"
        fault = failure_of(predict_paths([labeller], image, target, lambda _: None, "replace"))
        if fault:
            raise fault


def predict_theirs(
    shared: Shared, images: list[Path], output: Path, network: nn.Module | None = None
) -> None:
    """With nnU-Net's own network unless another is given."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

    plans = shared.their_plans
    network = network or their_network(shared)
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=CPU, allow_tqdm=False
    )
    predictor.manual_initialization(
        network,
        plans,
        plans.get_configuration("3d_fullres"),
        [network.state_dict()],
        shared.their_description,
        "nnUNetTrainer",
        None,
    )
    names = [str(output / f"theirs-{image.name.split('.')[0]}") for image in images]
    predictor.predict_from_files_sequential([[str(image)] for image in images], names)


def _windows(shared: Shared, image: Path) -> tuple[float, float]:
    """Seconds of MONAI's sliding window and of ours over one prepared image."""
    # Not above: its 0.26 GiB would count as ours in `memory.py`.
    from monai.inferers import sliding_window_inference  # noqa: PLC0415

    name, network = shared.plugin.name, _our_network(shared).eval()
    predictor = Predictor(network, shared.plugin, shared.plan, CPU)
    prepared = predictor.prepare(read_image([image]))
    array = prepared.planes(0, prepared.grid.shape_zyx[0])
    started = time.perf_counter()
    with torch.inference_mode():
        sliding_window_inference(
            torch.tensor(array)[None],
            shared.plan.patch_zyx,
            shared.plan.batch_size,
            lambda x: network(x.contiguous(memory_format=LAYOUT), domain=name).softmax(1),
            overlap=0.5,
            mode="gaussian",
        ).argmax(1)
    monai = time.perf_counter() - started
    started = time.perf_counter()
    predictor.predict_prepared(array)
    return monai, time.perf_counter() - started


def _text(sides: object) -> str:
    assert isinstance(sides, tuple | list)
    return f"{'x'.join(map(str, sides))} ({prod(sides) / 1e3:.0f} k)"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-voxels", type=int, default=1 << 18)
    return parser.parse_args()


if __name__ == "__main__":
    main()
