from pathlib import Path

import pytest

from u2net_platform import files
from u2net_platform.errors import DiskFull
from u2net_platform.files import (
    append_line,
    digest_of_file,
    exclusive,
    is_held,
    keep_digests,
    recall_digests,
    storage_errors,
)


def test_asking_whether_a_lock_is_held_makes_none(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock) and not lock.exists()
    with exclusive(lock):
        assert is_held(lock)
    assert not is_held(lock)


@pytest.mark.parametrize("error", [OSError(28, "?"), OSError("5040 requested and 4064 written")])
def test_a_disk_is_full_in_numpys_words_too(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(DiskFull), storage_errors(tmp_path):
        raise error


def test_a_line_does_not_join_one_that_was_torn(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append_line(log, "first")
    log.write_bytes(log.read_bytes() + b"tor")
    append_line(log, "second")
    assert log.read_text() == "first\ntor\nsecond\n"


def test_a_file_that_another_process_has_read_is_read_again_only_if_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, memory = tmp_path / "first", tmp_path / "second", tmp_path / "memory"
    for file in (first, second):
        file.write_text("image")
        monkeypatch.setattr(files, "_digests", {})
        digest = digest_of_file(file)
        keep_digests([file], memory)
    monkeypatch.setattr(files, "_digests", {})
    recall_digests(memory)
    second.write_text("other")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: pytest.fail("it is read"))
        assert digest_of_file(first) == digest
    assert digest_of_file(second) != digest
    memory.write_text("{")  # by a full disk
    recall_digests(memory)
    keep_digests([first], memory)
    assert digest in memory.read_text()
    keep_digests([first], first / "memory")  # where nothing can be written


def test_a_file_that_was_rewritten_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "image"
    found = set()
    for number in range(50):  # of one size, as fast as can be
        file.write_text(f"{number:04d}")
        found.add(digest_of_file(file))
        assert digest_of_file(file) in found
    assert len(found) == 50
