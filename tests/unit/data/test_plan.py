"""What is derived from the data, against the paper's figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2net_platform.data.augmentation import Augmenter
from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.integrity import load_case
from u2net_platform.data.patches import PatchSource
from u2net_platform.data.plan import (
    Fingerprint,
    derive_plan,
    pooling,
    take_fingerprint,
)
from u2net_platform.data.store import PreparedStore, prepare_cases
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import EmptyLabel, TooFewCases

SIDES = st.tuples(*[st.integers(1, 700)] * 3)
SPACINGS = st.tuples(*[st.floats(0.1, 12)] * 3)


def fingerprint(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Fingerprint:
    z, y, x = np.multiply(shape, spacing).tolist()
    return Fingerprint(
        cases=5,
        spacing_zyx_mm=spacing,
        shape_zyx=shape,
        extent_zyx_mm=(z, y, x),
        classes=(),
        foreground=None,
        data_digest="",
    )


@pytest.mark.parametrize(
    ("patch", "spacing", "pools"),
    [
        ((80, 192, 128), (1.37, 1.25, 1.25), [4, 5, 5]),
        ((128, 128, 128), (1, 0.77, 0.77), [5, 5, 5]),
        ((40, 56, 40), (1, 1, 1), [3, 3, 3]),
        ((20, 192, 192), (3.6, 0.625, 0.625), [2, 5, 5]),
        ((96, 160, 128), (2.5, 0.8, 0.8), [4, 5, 5]),
    ],
)
def test_pooling_agrees_with_the_paper(patch, spacing, pools: list[int]) -> None:
    strides, _ = pooling(patch, spacing)
    assert np.log2(np.prod(strides, axis=0)).tolist() == pools


def test_a_coarse_axis_is_pooled_later_and_has_flat_kernels_until_then() -> None:
    # Strides that are declared decide where an axis is fine enough for a kernel of 3.
    declared = [(1, 1, 1)] + [(1, 2, 2)] * 4
    strides, kernels = pooling((20, 192, 192), (3.6, 0.625, 0.625), declared)
    assert strides == declared
    assert [kernel[0] for kernel in kernels] == [1, 1, 1, 3, 3, 3]
    strides, kernels = pooling((20, 192, 192), (3.6, 0.625, 0.625))
    assert strides == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]
    assert kernels == [(1, 3, 3)] * 2 + [(3, 3, 3)] * 4


@settings(max_examples=60, deadline=None)
@given(SIDES, SPACINGS, st.sampled_from([2**15, 2**19, 2**22]))
def test_any_data_set_has_a_plan_that_fits(shape, spacing, voxels: int) -> None:
    plan = derive_plan(SPEC, fingerprint(shape, spacing), voxels)
    total = np.prod(plan.strides_zyx, axis=0)
    assert (np.remainder(plan.patch_zyx, total) == 0).all()
    assert (np.divide(plan.patch_zyx, total) >= np.minimum(4, shape)).all()
    assert 2 <= plan.batch_size <= 9
    assert math.prod(plan.patch_zyx) * 2 <= voxels
    flat = np.array(plan.kernels_zyx)
    assert (np.diff(flat, axis=0) >= 0).all()  # once 3, stays 3


SPEC = DomainSpec.model_validate(
    {
        "name": "any",
        "description": "any",
        "modality": "MR",
        "channels": ["T1"],
        "labels": [{"name": "organ", "values": [1]}],
        "data": {"dataset": "made up", "licence": "CC0"},
    }
)


def test_the_hippocampus_has_the_paper_s_patch_from_its_median_shape() -> None:
    plan = derive_plan(SPEC, fingerprint((36, 50, 35), (1.0, 1.0, 1.0)), 2**19)
    assert plan.patch_zyx == (40, 56, 40)
    assert plan.batch_size == 2**19 // (40 * 56 * 40)


def test_a_spacing_that_the_spec_declares_is_taken() -> None:
    declared = SPEC.model_copy(
        update={"geometry": SPEC.geometry.model_copy(update={"spacing_zyx_mm": (2.0, 2.0, 2.0)})}
    )
    plan = derive_plan(declared, fingerprint((40, 80, 80), (1.0, 1.0, 1.0)), 2**19)
    assert plan.spacing_zyx_mm == (2.0, 2.0, 2.0)
    assert plan.shape_zyx == (20, 40, 40)


def test_only_what_changes_prepared_cases_changes_their_digest() -> None:
    plan = derive_plan(SPEC, fingerprint((40, 80, 80), (1.0, 1.0, 1.0)), 2**19)
    smaller = plan.model_copy(update={"batch_size": 9})
    assert smaller.digest != plan.digest
    assert smaller.preparation_digest == plan.preparation_digest
    coarser = plan.model_copy(update={"spacing_zyx_mm": (2.0, 1.0, 1.0)})
    assert coarser.preparation_digest != plan.preparation_digest


def test_a_fingerprint_measures_the_cropped_cases(msd: Path, plugin: DomainPlugin) -> None:
    seen: list[str] = []
    cases = open_dataset(msd).training
    taken = take_fingerprint(plugin, cases, seen.append)
    assert seen == ["a", "bb", "ccc"]
    assert (taken.cases, taken.shape_zyx) == (3, (8, 16, 20))
    assert taken.spacing_zyx_mm == (3.0, 1.0, 1.0)
    assert taken.extent_zyx_mm == (24.0, 16.0, 20.0)
    assert taken.foreground is None
    assert take_fingerprint(plugin, cases[::-1], seen.append) == taken
    assert take_fingerprint(plugin, cases[1:], seen.append).data_digest != taken.data_digest


def test_dataset_statistics_are_those_of_the_foreground(msd: Path, plugin: DomainPlugin) -> None:
    spec = plugin.spec.model_copy(
        update={"intensity": plugin.spec.intensity.model_copy(update={"statistics": "dataset"})}
    )
    plugin = DomainPlugin(spec, msd)
    cases = open_dataset(msd).training
    loaded = [load_case(plugin, case) for case in cases]
    voxels = np.concatenate([i.array[1][labels.array > 0] for i, labels in loaded])
    found = take_fingerprint(plugin, cases, lambda _: None).foreground
    assert found is not None and len(found) == 2
    assert found[1].mean == pytest.approx(voxels.mean())
    assert found[1].std == pytest.approx(voxels.std())
    assert (found[1].low, found[1].high) == pytest.approx(np.percentile(voxels, [2, 98]))


def test_cases_without_the_organ_count_where_the_spec_allows_them(
    spec: DomainSpec, tmp_path: Path, write_case
) -> None:
    intensity = {"statistics": "dataset"}
    allowed = spec.document() | {"empty_labels": True, "intensity": intensity}
    plugin = DomainPlugin(DomainSpec.model_validate(allowed), tmp_path)
    full, empty = write_case("a"), write_case("bb", label=np.zeros((12, 20, 24)))
    taken = take_fingerprint(plugin, [full, empty], lambda _: None)
    assert [one.cases for one in taken.classes] == [2, 1, 1]
    assert taken.foreground == take_fingerprint(plugin, [full], lambda _: None).foreground
    plan = derive_plan(plugin.spec, taken, 4096)
    ready = prepare_cases(PreparedStore(tmp_path), plugin, plan, [empty], lambda _: None)
    patches = Augmenter(plugin.spec.augmentation, AugmentationRates(), plan.patch_zyx)
    _, labels, _ = PatchSource(ready, patches, 2).batch(np.random.default_rng(0))
    assert not labels.any()
    with pytest.raises(EmptyLabel, match="No case"):
        take_fingerprint(plugin, [empty], lambda _: None)


def test_no_case_has_no_fingerprint(plugin: DomainPlugin) -> None:
    with pytest.raises(TooFewCases):
        take_fingerprint(plugin, [], lambda _: None)
