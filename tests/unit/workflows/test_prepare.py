from pathlib import Path

import pytest

from u2net_platform import files
from u2net_platform.data.splits import splitter
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin
from u2net_platform.workflows.prepare import PlannedDomain, plan_domain


def test_each_case_is_told_as_its_files_are_read_also_where_nothing_is_left_to_do(
    tmp_path: Path,
) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))
    data = write_phantom("ball", tmp_path, cases=5, seed=0)

    def told() -> tuple[list[str], set[str]]:
        cases: list[str] = []
        planned = plan_domain(tmp_path / "p", plugin, data, splitter(0), 2**17, cases.append)
        return cases, {*planned.split.training, *planned.split.validation}

    first, wanted = told()
    again, _ = told()
    assert {*first} == {*again} == wanted
    assert len(again) == len(wanted) < len(first)  # of which each was measured too


def test_a_later_process_reads_no_file_again_that_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))
    data = write_phantom("ball", tmp_path, cases=5, seed=0)

    def plan() -> PlannedDomain:
        monkeypatch.setattr(files, "_digests", {})
        return plan_domain(tmp_path / "p", plugin, data, splitter(0), 2**17, lambda _: None)

    first, read = plan(), files.hashlib.file_digest
    again: list[str] = []
    monkeypatch.setattr(
        files.hashlib, "file_digest", lambda file, how: again.append(file.name) or read(file, how)
    )
    assert plan().fingerprint == first.fingerprint
    assert again == []
    image = first.training[0].images[0]
    image.write_bytes(image.read_bytes())
    assert plan().fingerprint == first.fingerprint
    assert again == [str(image)]
