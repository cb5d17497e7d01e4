"""From raw intensities to network input."""

from __future__ import annotations

import numpy as np
import pytest

from u2net_platform.data.integrity import load_case
from u2net_platform.data.plan import Plan
from u2net_platform.data.preprocessing import preprocess
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import Statistics
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import ImageVolume


def plan_of(*spacing: float, statistics: tuple[Statistics, ...] | None = None) -> Plan:
    return Plan(
        spacing_zyx_mm=(spacing[0], spacing[1], spacing[2]),
        shape_zyx=(8, 16, 20),
        patch_zyx=(8, 16, 20),
        strides_zyx=((1, 1, 1),) * 5,
        kernels_zyx=((3, 3, 3),) * 6,
        batch_size=2,
        statistics=statistics,
    )


def test_an_image_is_cropped_then_clipped_then_normalised_by_itself(
    plugin: DomainPlugin, write_case
) -> None:
    image, _ = load_case(plugin, write_case())
    inner = image.array[:, 2:-2, 2:-2, 2:-2].astype(np.float64)
    prepared = preprocess(image, plugin.spec, plan_of(3, 1, 1))
    for channel, raw in zip(prepared.array, inner, strict=True):
        clipped = raw.clip(*np.percentile(raw, [2, 98]))
        expected = (clipped - clipped.mean()) / clipped.std()
        assert np.allclose(channel, expected, atol=1e-4)
    assert prepared.grid.point((0, 0, 0)) == pytest.approx(image.grid.point((2, 2, 2)))


def test_dataset_statistics_replace_the_image_s_own(plugin: DomainPlugin, write_case) -> None:
    image, _ = load_case(plugin, write_case())
    both = (
        Statistics(mean=120, std=40, low=90, high=180),
        Statistics(mean=1, std=0, low=1, high=1),
    )
    prepared = preprocess(image, plugin.spec, plan_of(3, 1, 1, statistics=both))
    inner = image.array[0, 2:-2, 2:-2, 2:-2]
    assert np.allclose(prepared.array[0], (inner.clip(90, 180) - 120) / 40, atol=1e-5)
    assert not prepared.array[1].any()


def test_an_image_is_resampled_to_the_plan(plugin: DomainPlugin, write_case) -> None:
    image, _ = load_case(plugin, write_case())
    prepared = preprocess(image, plugin.spec, plan_of(2, 2, 0.5))
    assert prepared.array.shape == (2, 12, 8, 40)
    assert prepared.grid.spacing_zyx_mm == (2, 2, 0.5)
    assert prepared.array.mean(axis=(1, 2, 3)) == pytest.approx([0, 0], abs=1e-5)
    assert prepared.array.dtype == np.float32


def test_constant_and_flat_images_are_prepared(plugin: DomainPlugin) -> None:
    grid = Grid((1, 20, 20), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    flat = ImageVolume(np.full((2, 1, 20, 20), 5, np.float32), grid)
    prepared = preprocess(flat, plugin.spec, plan_of(3, 1.5, 1.5))
    assert prepared.array.shape == (2, 2, 13, 13)
    assert not prepared.array.any()
