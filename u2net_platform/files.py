"""Files that are there whole or not at all, or grow by lines; locks that end with their process."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from u2net_platform.errors import DiskFull, NotWritable, RunBusy, StorageError

TEMPORARY = ".tmp-"  # how the name of what is being written begins


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary file path beside `target`; on success it is synced and renamed to it.

    The temporary name keeps the target's suffixes, since writers choose the format by them.

    Raises:
        DiskFull, NotWritable: the write failed; `target` is as it was before.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(target.suffixes)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            sync(temporary)
            # mkstemp makes the file private; the target gets what the user's umask allows.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
            sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it is synced and renamed to it.

    When another process has meanwhile finished the same `target`, that one stays: the name of
    such a folder is a digest of what it holds.

    Raises:
        DiskFull, NotWritable: the write failed; `target` is as it was before.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
        try:
            yield temporary
            for path in temporary.iterdir():
                sync(path)
            temporary.chmod(0o777 & ~_umask())
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write a whole text file atomically, as UTF-8."""
    write_bytes(target, content.encode())


def write_secret(target: Path, content: bytes) -> None:
    """Write a new file that its owner alone may read.

    Raises:
        NotWritable: there is one already, or it cannot be made.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Never one that others could read for a moment, and never in place of another key.
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def append_line(target: Path, line: str, sync: bool = True) -> None:
    """Add a line to a text file, on disk when this returns unless `sync` is false.

    Raises:
        DiskFull, NotWritable: it cannot be added; the lines before are still there.
    """
    with storage_errors(target), target.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read() != b"\n"  # by a power cut, or a full disk
            line = "\n" * torn + line
        file.write(f"{line}\n".encode())
        file.flush()
        if sync:
            os.fsync(file.fileno())


_digests: dict[str, tuple[list[int], str]] = {}  # by path, with what the system said of the file


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text; read once by a process, until it changes."""
    name, status = str(path.absolute()), path.stat()
    state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    found = _digests.get(name)
    if found is None or found[0] != state:
        with path.open("rb") as file:
            found = state, hashlib.file_digest(file, "sha256").hexdigest()
        _digests[name] = found
    return found[1]


def keep_digests(paths: Iterable[Path], memory: Path) -> None:
    """Write the digests of files down, beside those that are in `memory`, for a later process; if
    there is no room, or no right to, that one reads the files again."""
    before = _read_digests(memory)
    names = {str(path.absolute()) for path in paths} & _digests.keys()
    after = before | {name: list(_digests[name]) for name in sorted(names)}
    if after != before:
        with suppress(StorageError):
            write_text(memory, json.dumps(after))


def recall_digests(memory: Path) -> None:
    """Take up what `keep_digests` has written: a file that is as it was then is not read again."""
    for name, (state, digest) in _read_digests(memory).items():
        _digests.setdefault(name, (state, digest))


def _read_digests(memory: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


@contextmanager
def exclusive(lock: Path, wait: bool = False) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Raises:
        RunBusy: another process holds it, and `wait` does not ask to wait for that one.
    """
    with storage_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunBusy(
                f"{lock.parent} is in use by another process",
                "Wait for it to end, or end it; then repeat the command.",
            ) from error
        yield


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file, as `exclusive` does."""
    try:
        # Shared, as on NFS an exclusive lock needs a file that is open for writing.
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the system's errors about a write to `target` into this project's."""
    try:
        yield
    except OSError as error:
        raise _storage_error(target, error) from error


def _storage_error(target: Path, error: OSError) -> StorageError:
    cut_short = error.errno is None and "requested and" in str(error)  # numpy's words for it
    if cut_short or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No room is left on the disk for {target}", "Free some, then repeat.")
    return NotWritable(
        f"{target} cannot be written: {error.strerror or error}",
        "Choose another place, or change its permissions.",
    )


def sync(path: Path) -> None:
    """Have the system put a file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
