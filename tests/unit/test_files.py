from pathlib import Path

from u2net_platform.files import exclusive, is_held


def test_asking_whether_a_lock_is_held_makes_none(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock) and not lock.exists()
    with exclusive(lock):
        assert is_held(lock)
    assert not is_held(lock)
