"""Cases in processes: the same results as one after the other, and no fault hides another."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from u2net_platform import memory
from u2net_platform.data import integrity, workers
from u2net_platform.data.dataset import Case
from u2net_platform.data.plan import take_fingerprint
from u2net_platform.data.workers import Spacing, for_each_case, free_bytes
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import InvalidCases, UnreadableImage, WorkerEnded


@pytest.fixture(autouse=True, scope="module")
def end_processes() -> Iterator[None]:
    """joblib keeps its processes for a while: other tests count this one's children."""
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda: 2)


def process_of(case: Case) -> int:
    return os.getpid()


def test_processes_give_the_same_fingerprint(
    write_case: Callable[..., Case], plugin: DomainPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [write_case(name) for name in ("a", "bb", "ccc")]
    alone = take_fingerprint(plugin, cases, lambda _: None)
    monkeypatch.setattr(workers, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda: 2)
    seen: list[str] = []
    assert take_fingerprint(plugin, cases, seen.append) == alone
    assert seen == ["a", "bb", "ccc"]
    here = for_each_case(plugin, cases, process_of, None, seen.append)
    assert os.getpid() not in here


def end_own_process(case: Case) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_the_system_ends_is_told(
    write_case: Callable[..., Case], plugin: DomainPlugin, in_processes: None
) -> None:
    cases = [write_case(name) for name in ("a", "bb")]
    with pytest.raises(WorkerEnded, match="memory"):
        for_each_case(plugin, cases, end_own_process, None, lambda _: None)


def test_a_plugin_s_own_code_travels_to_the_processes(
    write_case: Callable[..., Case], plugin: DomainPlugin, tmp_path: Path, in_processes: None
) -> None:
    folder = tmp_path / plugin.name
    folder.mkdir()
    from u2net_platform.domains.toml import to_toml

    (folder / "domain.toml").write_text(to_toml(plugin.spec))
    (folder / "plugin.py").write_text(
        "SHIFT = 1000.0\ndef clean_image(image, spacing_zyx_mm):\n    return image + SHIFT\n"
    )
    hooked = DomainPlugin.load(folder)
    spec = hooked.spec.model_copy(
        update={"intensity": hooked.spec.intensity.model_copy(update={"statistics": "dataset"})}
    )
    hooked = DomainPlugin(spec, folder, hooked.clean_image)
    taken = take_fingerprint(hooked, [write_case("a"), write_case("bb")], lambda _: None)
    assert taken.foreground is not None
    assert taken.foreground[0].mean > 1000


@pytest.mark.parametrize("worth", [0, 1 << 40])
def test_all_faulty_cases_are_named_at_once(
    worth: int,
    write_case: Callable[..., Case],
    plugin: DomainPlugin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "WORTH_PROCESSES", worth)
    cases = [write_case(name) for name in ("a", "bb", "ccc", "dddd")]
    cases[1].images[0].write_bytes(b"no image")
    cases[3].images[0].unlink()
    with pytest.raises(InvalidCases) as caught:
        take_fingerprint(plugin, cases, lambda _: None)
    assert "2 of 4 cases" in caught.value.message
    assert "bb: UnreadableImage" in caught.value.message
    assert "dddd: MissingFile" in caught.value.message


def test_a_hook_that_fails_on_one_case_hides_no_other(
    write_case: Callable[..., Case], plugin: DomainPlugin
) -> None:
    def fails_on_some(image: np.ndarray, spacing_zyx_mm: Spacing) -> np.ndarray:
        calls.append(spacing_zyx_mm)
        return image[99] if len(calls) == 2 else image

    calls: list[Spacing] = []
    hooked = replace(plugin, clean_image=fails_on_some)
    cases = [write_case(name) for name in ("a", "bb", "ccc")]
    with pytest.raises(InvalidCases, match=r"1 of 3 cases .*\n  bb: BrokenPlugin: .*IndexError"):
        take_fingerprint(hooked, cases, lambda _: None)
    assert len(calls) == 3


def test_a_file_that_may_not_be_read_is_named(
    write_case: Callable[..., Case], plugin: DomainPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(integrity, "digest_of_file", refused)
    with pytest.raises(UnreadableImage, match=r"a\.nii.* cannot be read: Permission denied"):
        integrity.digest_of_case(write_case("a"))


def test_free_in_a_control_group_is_also_what_a_file_s_unused_pages_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_control_groups", lambda: [tmp_path / "job", tmp_path])
    (tmp_path / "job").mkdir()
    for folder, limit in ((tmp_path / "job", "5000000"), (tmp_path, "max")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("4990000\n")
        (folder / "memory.stat").write_text("anon 1000\ninactive_file 3000000\n")
    assert free_bytes() == 3_010_000


def test_a_control_group_lies_in_those_above_it() -> None:
    groups = memory._control_groups()
    assert groups[-1:] in ([], [memory.CONTROL_GROUPS])


def test_a_volume_that_memory_does_not_hold_is_refused_with_the_figures(
    write_case: Callable[..., Case], plugin: DomainPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "free_bytes", lambda: 100_000)
    with pytest.raises(InvalidCases, match=r"TooLarge.* needs about .* GiB are free"):
        take_fingerprint(plugin, [write_case("a")], lambda _: None)


def test_free_memory_is_some_and_not_more_than_the_machine_has() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free_bytes() <= total
