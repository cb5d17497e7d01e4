"""A made-up domain whose organ is whatever is bright, and a network that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec

if TYPE_CHECKING:
    from torch import Tensor

    from u2net_platform.imaging.volume import Grid, ImageVolume
    from u2net_platform.inference.predictor import Predictor


@pytest.fixture
def bright(tmp_path: Path) -> DomainPlugin:
    spec = DomainSpec.model_validate(
        {
            "name": "bright",
            "description": "whatever is bright",
            "modality": "MR",
            "channels": ["T1"],
            "labels": [{"name": "organ", "values": [1]}],
            "data": {"dataset": "made up", "licence": "CC0"},
        }
    )
    return DomainPlugin(spec, tmp_path)


@pytest.fixture
def bright_predictor(bright: DomainPlugin) -> Predictor:
    import torch
    from torch import nn
    from u2net_platform.data.plan import Plan

    from u2net_platform.inference.predictor import Predictor

    class Threshold(nn.Module):
        """Class 1 where the normalised first channel lies above 1."""

        def forward(self, x: Tensor, domain: str) -> Tensor:
            assert domain == "bright"
            return torch.cat([1 - x[:, :1], x[:, :1] - 1], dim=1) * 20

    plan = Plan(
        spacing_zyx_mm=(2.0, 1.5, 1.5),
        shape_zyx=(24, 32, 32),
        patch_zyx=(16, 24, 24),
        strides_zyx=((1, 1, 1),) * 5,
        kernels_zyx=((3, 3, 3),) * 6,
        batch_size=2,
        statistics=None,
    )
    return Predictor(Threshold(), bright, plan, torch.device("cpu"))


@pytest.fixture
def oblique() -> Grid:
    """Anisotropic, axes permuted and two of them flipped, turned by 20 degrees about two axes."""
    from u2net_platform.imaging.volume import Grid

    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(
        [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    )
    axes = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # columns: the image's x, y, z
    return Grid(
        (20, 30, 36), (3.0, 1.2, 1.6), (40.0, -25.0, 110.0), tuple((turn @ axes).ravel().tolist())
    )


@pytest.fixture
def organ(oblique: Grid) -> np.ndarray:
    """A box that is long, broad and flat along patient x, y, z and lies off the centre; z y x."""
    direction = np.reshape(oblique.direction_lps, (3, 3))
    index = np.indices(oblique.shape_zyx)[::-1].reshape(3, -1)  # x y z
    spacing_xyz = np.array(oblique.spacing_zyx_mm[::-1])[:, None]
    points = direction @ (index * spacing_xyz) + np.array(oblique.origin_lps_mm)[:, None]
    centre = points.mean(axis=1) + np.array([4.0, -5.0, 3.0])
    inside = np.abs(points - centre[:, None]) < np.array([[16.0], [10.0], [7.0]])
    return inside.all(axis=0).reshape(oblique.shape_zyx).astype(np.uint8)


@pytest.fixture
def scan(oblique: Grid, organ: np.ndarray) -> ImageVolume:
    """An image of the organ."""
    from u2net_platform.imaging.volume import ImageVolume

    noise = np.random.default_rng(0).normal(0, 5, organ.shape)
    return ImageVolume((100 + 900.0 * organ + noise)[None].astype(np.float32), oblique)
