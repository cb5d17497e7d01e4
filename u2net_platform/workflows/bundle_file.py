"""The file of a bundle: a ZIP of a few named members, all of them listed with their SHA-256.

Nothing is trusted and nothing is unpacked: a member is read into memory, by its exact name, once
the sizes of all are known to fit; and nothing in it is code. Members are not compressed, so that no
small file can become a large one, and have one order and one date: equal contents are equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from u2net_platform.catalog.references import REFERENCE
from u2net_platform.errors import (
    BundleAltered,
    BundleSchema,
    BundleUnsafe,
    BundleUntrusted,
    MissingFile,
    NotWritable,
)
from u2net_platform.files import write_bytes
from u2net_platform.workflows.signing import fingerprint, public_bytes

SCHEMA_VERSION = 1
MANIFEST, SIGNATURE = "manifest.json", "signature.json"
REQUIRED = (
    "backbone.safetensors",
    "domain.safetensors",
    "spec.json",
    "plan.json",
    "metrics.json",
    "provenance.json",
    "README.md",
)
OPTIONAL = ("probe.safetensors", "pictures.png")
LARGEST_BYTES = 1 << 30
ENCRYPTED = 0x1  # of a member's flags
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a ZIP file can hold


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """What a bundle holds. `version` is the version's name where it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    version: Annotated[str, Field(pattern=f"^({REFERENCE.pattern})$")]
    members: dict[str, Entry]


class Signature(BaseModel):
    """An Ed25519 signature of the manifest's bytes; key and signature as hexadecimal text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Literal["Ed25519"]
    public_key: str
    signature: str


class Contents(BaseModel):
    """A bundle that was verified. `signer`: the fingerprint of the key, None if unsigned."""

    model_config = ConfigDict(frozen=True)

    manifest: Manifest
    members: dict[str, bytes]
    digest: str
    signer: str | None


def require_replaceable(path: Path) -> None:
    """Stop where a bundle would be written over what is none, as a key that signs.

    Raises:
        NotWritable
    """
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as old:
            known = MANIFEST in old.namelist()
    except (zipfile.BadZipFile, OSError):
        known = False
    if not known:
        raise NotWritable(f"{path} is there, and is no bundle", "Name another file.")


def write_bundle(
    path: Path, version: str, members: Mapping[str, bytes], key: Ed25519PrivateKey | None
) -> None:
    """Write a bundle, signed where a key is given.

    Raises:
        NotWritable, DiskFull: there is none then, or still the one before.
    """
    names = [name for name in (*REQUIRED, *OPTIONAL) if name in members]
    entries = {
        name: Entry(size=len(members[name]), sha256=hashlib.sha256(members[name]).hexdigest())
        for name in names
    }
    manifest = Manifest(schema_version=SCHEMA_VERSION, version=version, members=entries)
    text = manifest.model_dump_json(indent=2).encode()
    parts = {MANIFEST: text}
    if key is not None:
        signed = Signature(
            algorithm="Ed25519",
            public_key=public_bytes(key.public_key()).hex(),
            signature=key.sign(text).hex(),
        )
        parts[SIGNATURE] = signed.model_dump_json(indent=2).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (parts | {name: members[name] for name in names}).items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), content)
    write_bytes(path, buffer.getvalue())


def read_bundle(path: Path, trusted: Collection[Ed25519PublicKey] = ()) -> Contents:
    """Read a bundle and verify all of it; with `trusted` keys, one of them has to have signed it.

    Raises:
        MissingFile: there is no such file.
        BundleUnsafe: it holds what no bundle holds: a path, a link, code, compressed data.
        BundleSchema: another release of the format.
        BundleAltered: it is damaged, or a member is not what the manifest promises.
        BundleUntrusted: the signature is wrong, missing where one is asked for, or a stranger's.
    """
    parts = _parts(path)
    manifest = _manifest(path, parts)
    signer = _signer(path, parts, trusted)
    members = {name: parts[name] for name in parts if name not in (MANIFEST, SIGNATURE)}
    for name in sorted(set(REQUIRED) | set(manifest.members) | set(members)):
        entry, content = manifest.members.get(name), members.get(name)
        if entry is None or content is None:
            raise _altered(path, f"{name} is missing, or not in its list")
        if (len(content), hashlib.sha256(content).hexdigest()) != (entry.size, entry.sha256):
            raise _altered(path, f"{name} is not what the list promises")
    digest = hashlib.sha256(parts[MANIFEST]).hexdigest()
    return Contents(manifest=manifest, members=members, digest=digest, signer=signer)


def _parts(path: Path) -> dict[str, bytes]:
    """All members by name, as they are in the file."""
    if not path.is_file():
        raise MissingFile(f"{path} does not exist", "Correct the path.")
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise _unsafe(path, f"{size} bytes, more than the {LARGEST_BYTES} of any bundle")
    try:
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                _refuse_unsafe(path, one)
            if sum(one.file_size for one in archive.infolist()) > size:  # as where they overlap
                raise _unsafe(path, "members that are together larger than the file")
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise _unsafe(path, "a member that is there twice")
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error, OSError) as error:
        raise _altered(path, f"it is no whole ZIP file ({error})") from error


def _refuse_unsafe(path: Path, one: zipfile.ZipInfo) -> None:
    if one.filename not in (MANIFEST, SIGNATURE, *REQUIRED, *OPTIONAL):
        raise _unsafe(path, f"a member named {one.filename!r}")
    if stat.S_ISLNK(one.external_attr >> 16):
        raise _unsafe(path, f"a link named {one.filename!r}")
    if one.compress_type != zipfile.ZIP_STORED or one.compress_size != one.file_size:
        raise _unsafe(path, f"compressed data in {one.filename!r}")
    if one.flag_bits & ENCRYPTED:
        raise _unsafe(path, f"an encrypted member, {one.filename!r}")


def _manifest(path: Path, parts: Mapping[str, bytes]) -> Manifest:
    class Header(BaseModel):
        schema_version: int

    try:
        header = Header.model_validate_json(parts.get(MANIFEST, b""))
        if header.schema_version != SCHEMA_VERSION:
            newer = header.schema_version > SCHEMA_VERSION
            raise BundleSchema(
                f"{path} has format {header.schema_version}, this program reads {SCHEMA_VERSION}",
                "Upgrade the program." if newer else "Export it again, with a later release.",
            )
        return Manifest.model_validate_json(parts[MANIFEST])
    except ValidationError as error:
        raise _altered(path, "its list of members cannot be read") from error


def _signer(
    path: Path, parts: Mapping[str, bytes], trusted: Collection[Ed25519PublicKey]
) -> str | None:
    """The fingerprint of the key that signed it."""
    if SIGNATURE not in parts:
        if trusted:
            raise BundleUntrusted(f"{path} is not signed", "Ask its maker for a signed one.")
        return None
    try:
        found = Signature.model_validate_json(parts[SIGNATURE])
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found.public_key))
        key.verify(bytes.fromhex(found.signature), parts[MANIFEST])
    except (ValidationError, ValueError, InvalidSignature) as error:
        raise BundleUntrusted(
            f"The signature of {path} is wrong", "Do not use it; ask its maker for another."
        ) from error
    known = {public_bytes(one) for one in trusted}
    if trusted and public_bytes(key) not in known:
        raise BundleUntrusted(
            f"{path} is signed by {fingerprint(key)}, a key that you do not trust",
            "Compare the fingerprint with its maker's; then name that key: --trust.",
        )
    return fingerprint(key)


def _altered(path: Path, reason: str) -> BundleAltered:
    return BundleAltered(f"{path}: {reason}", "Get it again from where it was made.")


def _unsafe(path: Path, what: str) -> BundleUnsafe:
    return BundleUnsafe(f"{path} holds {what}", "Do not use it: no bundle holds that.")
