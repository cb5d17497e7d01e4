"""Weights by content: a file's name is the digest of its bytes, so equal weights share a file."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from u2net_platform.errors import DigestMismatch, MissingFile
from u2net_platform.files import digest_of_file, write_bytes

if TYPE_CHECKING:
    from torch import Tensor


class WeightStore:
    """A folder of `<sha256>.safetensors`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        return self.root / f"{digest}.safetensors"

    def put(self, tensors: dict[str, Tensor]) -> str:
        """Store named tensors and return their digest; the same tensors are stored once.

        Raises:
            NotWritable, DiskFull: nothing was stored.
        """
        content = serialised(tensors)
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        with suppress(OSError):  # another user's, in a home that several share, or unreadable
            if path.exists() and digest_of_file(path) == digest:
                os.utime(path)  # so that it is not garbage before its version has a row
                return digest
        write_bytes(path, content)
        return digest

    def get(self, digest: str) -> dict[str, Tensor]:
        """Read tensors, on the CPU.

        Raises:
            MissingFile: the store has none of this digest, or none that can be read.
            DigestMismatch: the file was altered or is damaged.
        """
        from safetensors.torch import load

        return load(self.read(digest))

    def read(self, digest: str) -> bytes:
        """The bytes of a file, as they were stored.

        Raises: as `get`.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MissingFile(
                f"Weights {path} cannot be read: {error.strerror}",
                "Restore the file from a backup, or its permissions; or train again.",
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise DigestMismatch(
                f"{path} is damaged: its SHA-256 is {found}, not {digest}",
                "Restore the file from a backup, or train again.",
            )
        return content


def digest_of(tensors: dict[str, Tensor]) -> str:
    """What a store would call them."""
    return hashlib.sha256(serialised(tensors)).hexdigest()


def serialised(tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a file of these tensors: the same for the same tensors."""
    from safetensors.torch import save

    # A copy each: safetensors refuses tensors that share memory or are not contiguous.
    plain = {
        name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)
    }
    content: bytes = save(plain)
    return content
