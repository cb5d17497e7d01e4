"""Prepared cases: whole, found again, and made anew only where something changed."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from u2net_platform.data import store as store_module
from u2net_platform.data.dataset import Case, open_dataset
from u2net_platform.data.plan import Plan, derive_plan, take_fingerprint
from u2net_platform.data.preprocessing import preprocess
from u2net_platform.data.store import PreparedStore, prepare_cases
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import Augmentation, Intensity
from u2net_platform.errors import InvalidCases, MissingFile


@pytest.fixture
def cases(msd: Path) -> tuple[Case, ...]:
    return open_dataset(msd).training


@pytest.fixture
def plan(plugin: DomainPlugin, cases: tuple[Case, ...]) -> Plan:
    plan = derive_plan(plugin.spec, take_fingerprint(plugin, cases, lambda _: None), 2**18)
    return plan.model_copy(update={"spacing_zyx_mm": (1.5, 1.0, 1.0)})


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    return PreparedStore(tmp_path / "prepared")


@pytest.fixture
def prepared_times(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a case is really prepared."""
    times: list[int] = []

    def counted(*arguments):
        times.append(1)
        return preprocess(*arguments)

    monkeypatch.setattr(store_module, "preprocess", counted)
    return times


def test_a_prepared_case_holds_image_labels_and_where_classes_are(
    store: PreparedStore, plugin: DomainPlugin, plan: Plan, cases: tuple[Case, ...]
) -> None:
    prepared = store.prepare(plugin, plan, cases[0])
    assert prepared.id == "a"
    assert isinstance(prepared.image, np.memmap)
    assert prepared.image.shape == (2, 16, 16, 20) and prepared.image.dtype == np.float32
    assert prepared.labels.shape == (16, 16, 20) and prepared.labels.dtype == np.uint8
    assert prepared.grid.spacing_zyx_mm == (1.5, 1.0, 1.0)
    assert sorted(prepared.foreground) == [1, 2]
    for value, voxels in prepared.foreground.items():
        assert {tuple(v) for v in voxels} == {
            tuple(v) for v in np.argwhere(prepared.labels == value)
        }
    # The organ is bright: labels lie on the image's grid.
    assert prepared.image[0][prepared.labels > 0].mean() > 1 > prepared.image[0].mean()


def test_foreground_is_bounded_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FOREGROUND_VOXELS", 100)
    voxels = store_module._spread(np.ones((10, 10, 33), bool))
    assert 90 < len(voxels) <= 100
    assert set(voxels[:, 0]) == set(range(10))


def test_a_case_is_prepared_once_and_again_only_if_something_changed(
    store: PreparedStore,
    plugin: DomainPlugin,
    plan: Plan,
    cases: tuple[Case, ...],
    prepared_times: list[int],
    write_case,
) -> None:
    first = store.prepare(plugin, plan, cases[0])
    other_words = {"description": "other words", "augmentation": Augmentation(elastic=False)}
    told_otherwise = replace(plugin, spec=plugin.spec.model_copy(update=other_words))
    same = [
        store.prepare(plugin, plan.model_copy(update={"batch_size": 7}), cases[0]),
        store.prepare(told_otherwise, plan, cases[0]),
        PreparedStore(store.root).prepare(plugin, plan, cases[0]),
    ]
    assert {case.directory for case in same} == {first.directory}
    assert len(prepared_times) == 1
    sharp = plugin.spec.model_copy(update={"intensity": Intensity(clip_percentiles=(1, 99))})
    coarser = plan.model_copy(update={"spacing_zyx_mm": (3.0, 1.0, 1.0)})
    changed = [
        store.prepare(plugin, coarser, cases[0]),
        store.prepare(replace(plugin, code_digest="other"), plan, cases[0]),
        store.prepare(replace(plugin, spec=sharp), plan, cases[0]),
        store.prepare(plugin, plan, write_case("a", label=np.full((12, 20, 24), 4))),
    ]
    assert len({case.directory for case in changed} | {first.directory}) == 5
    assert len(prepared_times) == 5


def test_all_faulty_cases_are_named_and_the_good_ones_kept(
    store: PreparedStore, plugin: DomainPlugin, plan: Plan, cases: tuple[Case, ...], write_case
) -> None:
    write_case("a", label=np.zeros((12, 20, 24)))
    write_case("ccc", label=np.full((12, 20, 24), 9))
    seen: list[str] = []
    with pytest.raises(InvalidCases, match="2 of 3") as caught:
        prepare_cases(store, plugin, plan, cases, seen.append)
    assert seen == ["a", "bb", "ccc"]
    assert "a: EmptyLabel" in caught.value.message
    assert "ccc: UnexpectedLabel" in caught.value.message
    assert len(list((store.root / plugin.name).iterdir())) == 1


def test_nothing_half_written_stays(
    store: PreparedStore,
    plugin: DomainPlugin,
    plan: Plan,
    cases: tuple[Case, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*arguments: object, **arrays: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module.np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.prepare(plugin, plan, cases[0])
    assert not list((store.root / plugin.name).iterdir())


def test_a_case_without_label_is_not_prepared(
    store: PreparedStore, plugin: DomainPlugin, plan: Plan, cases: tuple[Case, ...]
) -> None:
    with pytest.raises(MissingFile, match="a has no label"):
        store.prepare(plugin, plan, replace(cases[0], label=None))


def test_a_kill_at_any_moment_leaves_whole_cases_and_the_next_run_completes(
    store: PreparedStore, plugin: DomainPlugin, plan: Plan, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    whole = PreparedStore(tmp_path / "undisturbed")
    started = time.monotonic()
    expected = [whole.prepare(plugin, plan, case) for case in cases]
    seconds = time.monotonic() - started
    killed = 0
    for part in np.linspace(0.02, 0.98, 12):
        shutil.rmtree(store.root, ignore_errors=True)
        process = context.Process(target=prepare_all, args=(store, plugin, plan, cases))
        process.start()
        process.join(part * seconds)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        prepare_all(store, plugin, plan, cases)
        for case, other in zip(cases, expected, strict=True):
            found = store.find(plugin, plan, case)
            assert found is not None
            assert np.array_equal(found.image, other.image)
            assert np.array_equal(found.labels, other.labels)
    assert killed > 3


def prepare_all(
    store: PreparedStore, plugin: DomainPlugin, plan: Plan, cases: tuple[Case, ...]
) -> None:
    for case in cases:
        store.prepare(plugin, plan, case)
