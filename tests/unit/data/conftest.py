"""Small MSD folders of one sharp organ in noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from u2net_platform.data.dataset import Case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec

WriteCase = Callable[..., Case]


@pytest.fixture
def spec() -> DomainSpec:
    """Two channels and two classes, one of them merged from two source values."""
    return DomainSpec.model_validate(
        {
            "name": "made-up",
            "description": "an organ with a tumour beside a gland",
            "modality": "MR",
            "channels": ["T2", "ADC"],
            "labels": [{"name": "gland", "values": [4]}, {"name": "organ", "values": [1, 2]}],
            "data": {"dataset": "made up", "licence": "CC0"},
        }
    )


@pytest.fixture
def plugin(spec: DomainSpec, tmp_path: Path) -> DomainPlugin:
    return DomainPlugin(spec, tmp_path)


@pytest.fixture
def write_case(tmp_path: Path) -> WriteCase:
    """Write a case of two channels, 12 x 20 x 24 voxels of 3 x 1 x 1 mm, and say where it is.

    The outermost two voxels of every side are zero; `image` and `label` replace the arrays.
    """

    def write(
        case_id: str = "a",
        image: np.ndarray | None = None,
        label: np.ndarray | None = None,
        label_origin: Sequence[float] = (0, 0, 0),
    ) -> Case:
        labels = np.zeros((12, 20, 24), np.uint8)
        labels[4:6, 6:10, 6:10], labels[6:8, 6:10, 6:10], labels[4:8, 12:16, 12:18] = 1, 2, 4
        noise = np.random.default_rng(len(case_id)).normal(100, 10, (2, 12, 20, 24))
        noise[:, labels > 0] += 100
        array = np.zeros_like(noise)
        inner = (slice(None), *[slice(2, -2)] * 3)
        array[inner] = noise[inner]
        return Case(
            case_id,
            (
                _save(
                    tmp_path / "imagesTr" / f"{case_id}.nii.gz", array if image is None else image
                ),
            ),
            _save(
                tmp_path / "labelsTr" / f"{case_id}.nii.gz",
                labels if label is None else label,
                label_origin,
            ),
        )

    return write


def _save(path: Path, array: np.ndarray, origin: Sequence[float] = (0, 0, 0)) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.float32), isVector=False)
    image.SetSpacing((1.0, 1.0, 3.0, 1.0)[: array.ndim])
    image.SetOrigin((*origin, 0)[: array.ndim])
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def msd(tmp_path: Path, write_case: WriteCase) -> Path:
    """An MSD folder of three such cases and one to predict."""
    cases = [write_case(name) for name in ("a", "bb", "ccc")]
    (tmp_path / "imagesTs").mkdir()
    _save(tmp_path / "imagesTs" / "d.nii.gz", np.ones((2, 12, 20, 24)))
    content = {
        "name": "MadeUp",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "organ", "2": "tumour", "4": "gland"},
        "licence": "CC0",
        "training": [
            {"image": f"./imagesTr/{case.id}.nii.gz", "label": f"./labelsTr/{case.id}.nii.gz"}
            for case in cases
        ],
        "test": ["./imagesTs/d.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path
