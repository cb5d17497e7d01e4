"""Ed25519 keys in PEM files, by which a bundle says who made it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from u2net_platform.errors import InvalidKey, MissingFile, NotWritable
from u2net_platform.files import write_bytes, write_secret


def create_key(path: Path) -> Path:
    """Write a new private key, which only its owner may read, and `<path>.pub` beside it.

    Raises:
        NotWritable: one of the files is there already, or cannot be made.
    """
    if not path.name:
        raise NotWritable(f"{str(path)!r} is no name of a file", "Name one, as keys/lab.")
    public = path.with_name(f"{path.name}.pub")
    if public.exists():  # perhaps somebody else's, by which bundles are trusted
        raise NotWritable(f"{public} exists already", "Choose another name.")
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret(path, text)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_bytes(public, pem)
    return public


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Raises MissingFile, InvalidKey."""
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _invalid(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _invalid(path)
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Raises MissingFile, InvalidKey."""
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid(path) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _invalid(path)
    return key


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def fingerprint(key: Ed25519PublicKey) -> str:
    """What people compare: the beginning of the key's SHA-256."""
    return hashlib.sha256(public_bytes(key)).hexdigest()[:32]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingFile(f"{path} cannot be read", "Correct the path of the key.") from error


def _invalid(path: Path) -> InvalidKey:
    return InvalidKey(
        f"{path} is no such Ed25519 key",
        "Bundles are signed with the private file, PATH, and trusted by the public one, PATH.pub;"
        " make a pair: u2net model key PATH",
    )
