"""What training sees, and that it depends on seed, domain and what it had before alone."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from u2net_platform.data.augmentation import Augmenter
from u2net_platform.data.augmentation_rates import AugmentationRates
from u2net_platform.data.patches import Batch, PatchSource, PatchStream, batches_ahead, cut
from u2net_platform.data.store import PreparedCase
from u2net_platform.domains.spec import Augmentation

Shape = tuple[int, int, int]
MakeCase = Callable[..., PreparedCase]
NEVER = AugmentationRates(elastic=0, rotation=0, scaling=0, mirroring=0)
PATCH = (4, 8, 8)


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    """A prepared case whose every voxel has an intensity of its own, above 0."""

    def make(name: str, shape: Shape, organ: tuple[slice, ...]) -> PreparedCase:
        directory = tmp_path / name
        directory.mkdir()
        labels = np.zeros(shape, np.uint8)
        labels[organ] = 1
        image = 1 + np.arange(labels.size, dtype=np.float32).reshape(1, *shape)
        np.save(directory / "image.npy", image)
        np.save(directory / "labels.npy", labels)
        np.savez(directory / "foreground.npz", **{"1": np.argwhere(labels).astype(np.int32)})
        return PreparedCase(name, directory)

    return make


@pytest.fixture
def case(make_case: MakeCase) -> PreparedCase:
    return make_case("case", (12, 20, 24), (slice(5, 7), slice(8, 12), slice(3, 9)))


def source(
    *cases: PreparedCase, rates: AugmentationRates = NEVER, batch: int = 2, patch: Shape = PATCH
) -> PatchSource:
    return PatchSource(cases, Augmenter(Augmentation(), rates, patch), batch)


def test_no_file_stays_open_however_many_cases_there_are(make_case: MakeCase) -> None:
    organ = (slice(5, 7), slice(8, 12), slice(3, 9))
    cases = [make_case(f"case{number}", (12, 20, 24), organ) for number in range(20)]
    opened = len(list(Path("/proc/self/fd").iterdir()))
    many = source(*cases, batch=9)
    for seed in range(5):
        many.batch(np.random.default_rng(seed))
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def same(one: Batch, other: Batch) -> bool:
    return (
        one.domain == other.domain
        and torch.equal(one.images, other.images)
        and torch.equal(one.labels, other.labels)
    )


def test_batches_depend_neither_on_the_workers_nor_on_where_training_was_taken_up(
    case: PreparedCase,
) -> None:
    changed = source(case, rates=AugmentationRates())
    stream = PatchStream({"a": changed, "b": source(case)}, seed=4)
    here = list(islice(stream.from_step(0, workers=0), 6))
    assert not same(here[0], here[2])
    for start, workers in ((0, 1), (0, 2), (3, 0), (3, 2)):
        there = islice(stream.from_step(start, workers), 6 - start)
        assert all(same(*pair) for pair in zip(here[start:], there, strict=True))


def test_few_batches_are_ahead_however_many_make_them() -> None:
    assert [batches_ahead(workers) for workers in (0, 1, 2, 15)] == [0, 4, 4, 15]


def test_a_signal_to_the_workers_does_not_end_them(case: PreparedCase) -> None:
    # Ctrl-C goes to every process of the terminal, and the trainer still has a step to end.
    stream = PatchStream({"a": source(case)}, seed=0)
    batches = stream.from_step(0, workers=1)
    next(batches)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for worker in active_children():
            os.kill(worker.pid, number)
    later = list(islice(batches, 12))  # more than are made ahead
    assert same(later[-1], stream[12])


def test_domains_take_turns(case: PreparedCase) -> None:
    stream = PatchStream({"b": source(case), "a": source(case)}, seed=0)
    domains = [batch.domain for batch in islice(stream.from_step(0, 0), 5)]
    assert domains == ["b", "a", "b", "a", "b"]


def test_a_domain_sees_the_same_whoever_trains_beside_it(case: PreparedCase) -> None:
    def seen(*domains: str) -> list[Batch]:
        stream = PatchStream({name: source(case) for name in domains}, seed=1)
        batches = islice(stream.from_step(0, 0), 3 * len(domains))
        return [batch for batch in batches if batch.domain == "a"]

    alone = seen("a")
    for others in (("a", "b"), ("b", "a"), ("c", "b", "a")):
        assert all(same(*pair) for pair in zip(alone, seen(*others), strict=True))


def test_a_step_s_domain_and_turn_do_not_depend_on_which_were_asked_for_before(
    case: PreparedCase,
) -> None:
    def new() -> PatchStream:
        sources = {name: source(case) for name in "abc"}
        return PatchStream(sources, seed=3, weights={"a": 3.0, "b": 1.0, "c": 2.0})

    alone = [new()._turn(step) for step in range(60)]
    counts: Counter[str] = Counter()
    for domain, turn in alone:
        assert turn == counts[domain]
        counts[domain] += 1
    stream = new()
    for step in (0, 1, 2, 17, 17, 59, 3, 40, 0):
        assert stream._turn(step) == alone[step]


def test_domains_come_as_often_as_their_weights_say_in_any_stretch(case: PreparedCase) -> None:
    sources = {name: source(case) for name in "abc"}
    stream = PatchStream(sources, seed=3, weights={"a": 3.0, "b": 1.0, "c": 2.0})
    domains = [stream[step].domain for step in range(180)]
    for start in range(0, 180, 30):
        counts = Counter(domains[start : start + 30])
        assert [counts[name] for name in "abc"] == pytest.approx([15, 5, 10], abs=2)


def test_a_domain_sees_the_same_batches_however_often_its_turn_comes(case: PreparedCase) -> None:
    alone = PatchStream({"a": source(case)}, seed=3)
    weighted = PatchStream(
        {"a": source(case), "b": source(case)}, seed=3, weights={"a": 3.0, "b": 1.0}
    )
    seen = [batch for step in range(20) if (batch := weighted[step]).domain == "a"]
    assert len(seen) >= 14
    assert all(same(batch, alone[turn]) for turn, batch in enumerate(seen))


def test_domains_and_seeds_see_other_patches(case: PreparedCase) -> None:
    streams = [PatchStream({"a": source(case), "b": source(case)}, seed) for seed in (0, 1)]
    images = [streams[0][0].images, streams[0][1].images, streams[1][0].images]
    assert not any(torch.equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(("batch", "centred"), [(2, 1), (3, 1), (4, 2), (7, 3)])
def test_a_third_of_a_batch_rounded_up_is_centred_on_foreground(
    batch: int, centred: int, make_case: MakeCase
) -> None:
    voxel = (slice(15, 16), slice(30, 31), slice(30, 31))
    only = make_case("one-voxel", (32, 64, 64), voxel)
    _, labels, _ = source(only, batch=batch).batch(np.random.default_rng(0))
    assert labels[:centred, 2, 4, 4].tolist() == [1] * centred
    assert labels[:, 2, 4, 4].sum() == centred


def test_foreground_at_the_border_does_not_draw_the_patch_over_it(make_case: MakeCase) -> None:
    corner = (slice(0, 1), slice(19, 20), slice(0, 1))
    images, labels, _ = source(make_case("corner", (12, 20, 24), corner), batch=3).batch(
        np.random.default_rng(0)
    )
    assert labels[0, 0, 7, 0] == 1
    assert (images > 0).all()


def test_random_patches_reach_every_border_and_nothing_beyond(case: PreparedCase) -> None:
    rng = np.random.default_rng(0)
    seen = source(case, batch=3)
    images = torch.cat([seen.batch(rng)[0][1:] for _ in range(150)])
    assert (images > 0).all()
    voxels = np.stack(np.unravel_index(images.numpy().astype(int) - 1, (12, 20, 24)))
    assert voxels.reshape(3, -1).min(axis=1).tolist() == [0, 0, 0]
    assert voxels.reshape(3, -1).max(axis=1).tolist() == [11, 19, 23]


def test_image_and_labels_are_cut_at_the_same_place(case: PreparedCase) -> None:
    images, labels, _ = source(case, batch=4).batch(np.random.default_rng(2))
    voxels = np.unravel_index(images[:, 0].numpy().astype(int) - 1, (12, 20, 24))
    assert np.array_equal(case.labels[voxels], labels.numpy())


def test_a_patch_larger_than_the_volume_is_filled_up_with_zeros_on_both_sides(
    make_case: MakeCase,
) -> None:
    small = make_case("small", (2, 20, 5), (slice(0, 1), slice(3, 9), slice(2, 4)))
    images, labels, _ = source(small, batch=3).batch(np.random.default_rng(0))
    assert images.shape == (3, 1, 4, 8, 8)
    assert labels.shape == (3, 4, 8, 8)
    inside = images[:, 0] > 0
    assert inside[:, 1:3, :, 2:7].all()
    assert inside.sum() == 3 * 2 * 8 * 5
    assert not labels[~inside].any()


def test_a_cut_is_the_slice_where_it_lies_inside_and_zero_outside() -> None:
    array = np.arange(1, 61).reshape(3, 4, 5)
    assert np.array_equal(cut(array, np.array([1, 2, 2]), (2, 2, 4)), array[0:2, 1:3, 0:4])
    beyond = cut(array[None], np.array([2, 3, 0]), (4, 2, 4))
    assert beyond.shape == (1, 4, 2, 4)
    assert np.array_equal(beyond[0, :3, :, 2:], array[0:3, 2:4, 0:2])
    assert not beyond[0, 3].any()
    assert not beyond[..., :2].any()
