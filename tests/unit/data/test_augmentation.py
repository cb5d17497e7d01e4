from __future__ import annotations

import random

import numpy as np
import pytest
from batchgenerators.augmentations.utils import elastic_deform_coordinates

from u2net_platform.data.augmentation import (
    ELASTIC_ALPHA,
    ELASTIC_SIGMA,
    Augmenter,
    elastic_displacement,
)
from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.data.patches import cut
from u2net_platform.domains.spec import Augmentation

ALWAYS = AugmentationRates(elastic=1, rotation=1, scaling=1, mirroring=1)
NEVER = AugmentationRates(elastic=0, rotation=0, scaling=0, mirroring=0)
PATCH = (6, 8, 8)
Pair = tuple[np.ndarray, np.ndarray]


def volume(augmenter: Augmenter) -> Pair:
    """Two channels of which the second is the labels: 0, 3 and 7, a step of which none is mean."""
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 3, 7], np.uint8), size=augmenter.source_zyx)
    return np.stack([rng.normal(size=labels.shape), labels]).astype(np.float32), labels


def changed(rates: AugmentationRates, seed: int, spec: Augmentation | None = None) -> Pair:
    augmenter = Augmenter(spec or Augmentation(), rates, PATCH)
    return augmenter(*volume(augmenter), seed)


def test_the_source_is_as_much_larger_as_shrinking_needs() -> None:
    assert Augmenter(Augmentation(scaling=(0.7, 1.3)), ALWAYS, PATCH).source_zyx == (8, 12, 12)
    assert Augmenter(Augmentation(scaling=(0.7, 0.9)), ALWAYS, PATCH).source_zyx == PATCH


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 9, 12, 20, 28])
def test_the_middle_is_where_the_patch_would_be_cut_and_what_is_only_turned_is_read_there(
    side: int,
) -> None:
    spec = Augmentation(scaling=(0.75, 1.25), rotation_axes=("z",), elastic=False)
    slices = np.arange(60, dtype=np.float32)[None, :, None, None] * np.ones((1, 60, 40, 40))
    centre = np.array([30, 20, 20])
    still = AugmentationRates(elastic=0, rotation=0, scaling=0, mirroring=0)
    for rates in (still, still.model_copy(update={"rotation": 1.0})):
        augmenter = Augmenter(spec, rates, (side, 8, 8))
        source = cut(slices.astype(np.float32), centre, augmenter.source_zyx)
        image, labels = augmenter(source, source[0].astype(np.uint8), 3)
        expected = cut(slices, centre, (side, 8, 8))
        np.testing.assert_allclose(image, expected, atol=1e-4)
        np.testing.assert_array_equal(labels, expected[0])


def test_a_change_depends_on_its_seed_alone() -> None:
    first, again, other = (changed(ALWAYS, seed) for seed in (5, 5, 6))
    for one, two, three in zip(first, again, other, strict=True):
        assert np.array_equal(one, two)
        assert not np.array_equal(one, three)


def test_a_change_leaves_the_global_generators_as_they_were() -> None:
    random.seed(1)
    np.random.seed(1)
    before, expected = random.getstate(), np.random.get_state()
    changed(ALWAYS, 5)
    assert random.getstate() == before
    found = np.random.get_state()
    assert np.array_equal(found[1], expected[1])
    assert found[2:] == expected[2:]


def test_the_global_generators_do_not_change_what_comes_out() -> None:
    random.seed(1)
    np.random.seed(1)
    first = changed(ALWAYS, 5)[0]
    random.seed(2)
    np.random.seed(2)
    assert np.array_equal(changed(ALWAYS, 5)[0], first)


@pytest.mark.parametrize("seed", range(4))
def test_labels_keep_to_their_values_and_types_and_shapes_are_the_patch_s(seed: int) -> None:
    image, labels = changed(ALWAYS, seed)
    assert image.shape == (2, *PATCH)
    assert image.dtype == np.float32
    assert labels.shape == PATCH
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 3, 7}


def test_no_change_gives_the_middle_voxel_by_voxel() -> None:
    augmenter = Augmenter(Augmentation(), NEVER, PATCH)
    image, labels = volume(augmenter)
    assert augmenter.source_zyx == (8, 10, 10)
    found = augmenter(image, labels, 3)
    assert np.array_equal(found[0], image[:, 1:7, 1:9, 1:9])
    assert np.array_equal(found[1], labels[1:7, 1:9, 1:9])


@pytest.mark.parametrize(("axis", "place"), [("z", 0), ("y", 1), ("x", 2)])
def test_only_the_axes_of_the_spec_are_mirrored_and_image_and_labels_together(
    axis: str, place: int
) -> None:
    spec = Augmentation.model_validate({"mirror_axes": (axis,)})
    _, plain = changed(NEVER, 0)
    rates = NEVER.model_copy(update={"mirroring": 1})
    mirrored = 0
    for seed in range(8):  # each axis is mirrored half the time
        image, labels = changed(rates, seed, spec)
        assert np.array_equal(image[1], labels)
        if not np.array_equal(labels, plain):
            assert np.array_equal(labels, np.flip(plain, place))
            mirrored += 1
    assert 0 < mirrored < 8


@pytest.mark.parametrize(("axis", "place"), [("z", 0), ("y", 1), ("x", 2)])
def test_a_turn_about_an_axis_leaves_the_place_along_it(axis: str, place: int) -> None:
    spec = Augmentation.model_validate(
        {"rotation_axes": (axis,), "rotation_degrees": 40, "scaling": (1, 3)}
    )
    augmenter = Augmenter(spec, NEVER.model_copy(update={"rotation": 1}), PATCH)
    along = np.indices(augmenter.source_zyx)[place].astype(np.float32)
    across = np.indices(augmenter.source_zyx)[(place + 1) % 3].astype(np.float32)
    image, _ = augmenter(np.stack([along, across]), np.zeros(along.shape, np.uint8), 1)
    others = tuple(index for index in range(3) if index != place)
    assert np.allclose(image[0].min(axis=others), image[0].max(axis=others), atol=1e-3)
    assert not np.allclose(image[1].min(axis=place), image[1][tuple([0] * 3)], atol=0.5)
    assert np.ptp(image[1], axis=(place + 2) % 3).max() > 0.5  # turned: it changes along the third


@pytest.mark.parametrize(
    ("shape", "draws"),
    [((32, 40, 36), 60), ((12, 48, 48), 60), ((6, 8, 8), 300), ((1, 30, 30), 200)],
)
def test_elastic_displacements_are_as_large_and_as_smooth_as_those_drawn_voxel_by_voxel(
    shape: tuple[int, int, int], draws: int
) -> None:
    ours, theirs = [], []
    np.random.seed(0)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        alpha, sigma = rng.uniform(*ELASTIC_ALPHA), rng.uniform(*ELASTIC_SIGMA)
        ours.append(elastic_displacement(np.random.default_rng(seed), shape) / alpha)
        theirs.append(elastic_deform_coordinates(np.zeros((3, *shape)), alpha, sigma) / alpha)

    def spread(field: np.ndarray) -> float:
        return float(np.sqrt(np.mean(field**2)))

    assert np.shape(ours) == np.shape(theirs)
    assert spread(np.stack(ours)) == pytest.approx(spread(np.stack(theirs)), rel=0.08)
    for axis in (place for place in (2, 3, 4) if shape[place - 2] > 1):
        slope, expected = (spread(np.diff(np.stack(all_), axis=axis)) for all_ in (ours, theirs))
        assert slope == pytest.approx(expected, rel=0.1)


ROOM = {"scaling": (1, 3)}  # a source so large that no voxel comes from beyond it


def origins(rates: dict[str, float], seed: int, **spec: object) -> np.ndarray:
    """Where the voxels of a patch come from, 3 z y x, in voxels from the source's middle."""
    chosen = Augmentation.model_validate(ROOM | spec)
    augmenter = Augmenter(chosen, NEVER.model_copy(update=rates), PATCH)
    places = np.indices(augmenter.source_zyx).astype(np.float32)
    found, _ = augmenter(places, np.zeros(places.shape[1:], np.uint8), seed)
    return found - (np.array(augmenter.source_zyx).reshape(3, 1, 1, 1) - 1) / 2


@pytest.mark.parametrize("rates", [{"rotation": 1.0}, {"scaling": 1.0}])
def test_the_middle_stays_where_it_is(rates: dict[str, float]) -> None:
    for seed in range(4):
        found = origins(rates, seed, rotation_axes=("z",), rotation_degrees=40)
        assert np.allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-3)


def test_scales_are_the_spec_s_and_on_both_sides_of_one() -> None:
    factors = []
    for seed in range(30):
        found = origins({"scaling": 1.0}, seed, scaling=(0.5, 2.0))
        steps = [np.diff(found[axis], axis=axis).mean() for axis in range(3)]
        assert np.allclose(steps, steps[0], atol=1e-3)
        factors.append(steps[0])
    assert 0.5 <= min(factors) < 0.8
    assert 1.3 < max(factors) <= 2.0


def test_a_spec_that_only_enlarges_is_kept_to() -> None:
    for seed in range(12):
        found = origins({"scaling": 1.0}, seed, scaling=(0.7, 0.9))
        assert 0.7 <= np.diff(found[2], axis=2).mean() <= 0.9


def test_turns_are_within_the_spec_s_degrees() -> None:
    angles = []
    for seed in range(30):
        found = origins({"rotation": 1.0}, seed, rotation_axes=("z",), rotation_degrees=40)
        across, along = (np.diff(found[axis], axis=2).mean() for axis in (1, 2))
        angles.append(abs(np.degrees(np.arctan2(across, along))))
    assert 20 < max(angles) <= 40
    assert min(angles) < 10


def test_an_elastic_deformation_moves_voxels_smoothly_unless_the_spec_forbids_it() -> None:
    rates = {"elastic": 1.0}
    kept = origins(rates, 0, elastic=False)
    assert np.array_equal(kept, origins({}, 0))
    moved = np.stack([origins(rates, seed, elastic=True) - kept for seed in range(8)])
    assert 0.05 < np.abs(moved).max() < 8
    assert np.abs(np.diff(moved, axis=4)).max() < 0.5 * np.abs(moved).max()


def test_a_label_is_that_of_the_nearest_voxel() -> None:
    spec = Augmentation.model_validate(ROOM | {"rotation_axes": ("z",), "rotation_degrees": 40})
    augmenter = Augmenter(spec, NEVER.model_copy(update={"rotation": 1, "elastic": 1}), PATCH)
    places = np.indices(augmenter.source_zyx).astype(np.float32)
    _, labels = volume(augmenter)
    where, found = augmenter(places, labels, 1)
    z, y, x = np.rint(where).astype(int)
    assert (found == labels[z, y, x]).mean() > 0.99  # but for ties
