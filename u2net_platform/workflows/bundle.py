"""A version as one file: out of a catalog, and into another."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.imports import ORIGIN
from u2net_platform.catalog.records import RunRecord, VersionRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.domains.plugin import with_hooks
from u2net_platform.domains.spec import DomainSpec, list_faults
from u2net_platform.errors import IncompatibleParts
from u2net_platform.settings import Settings
from u2net_platform.workflows.add_domain import find_added
from u2net_platform.workflows.bundle_file import read_bundle, require_replaceable, write_bundle
from u2net_platform.workflows.bundle_parts import Fingerprint, Metrics, Provenance, parts_of
from u2net_platform.workflows.model_card import model_card
from u2net_platform.workflows.verify import take_probe
from u2net_platform.workflows.versions import load_network

LOCAL_TO_A_MACHINE: dict[str, Any] = {
    "directory": "",
    "mlflow_run_id": None,
    "base_version": None,
    "starts": {},
}


@dataclass(frozen=True)
class Imported:
    """A version that came from a bundle. `new`: it was not there before.

    added: metrics that the version here did not have. kept: those that it has otherwise, or that
    nobody vouches for.
    """

    record: VersionRecord
    signer: str | None
    new: bool
    added: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def export_bundle(
    settings: Settings,
    record: VersionRecord,
    path: Path,
    key: Ed25519PrivateKey | None = None,
    pictures: bytes | None = None,
) -> Path:
    """Write a version with all that it needs and all that is known of it; signed with a key.

    pictures: a PNG for the model card. They show patients, so none are made unasked.

    Raises:
        MissingFile, DigestMismatch: its weights are gone or altered.
        IncompatibleParts: something of it is nothing that another catalog would take.
        NotWritable, DiskFull: there is no bundle; or something else is there, and stays.
    """
    require_replaceable(path)
    catalog, store = Catalog.open(settings.database_url), WeightStore(settings.weights_dir)
    run = _as_made(record, catalog.runs.get(record.run_id))
    probe = record.probe or take_probe(load_network(store, record), record.domain, store)
    provenance = _provenance(record.model_copy(update={"probe": probe}), run)
    # Scores on other data are of who has those.
    metrics = {key: one for key, one in record.metrics.items() if key in Metrics.model_fields}
    # No case has an empty name: what is found cannot say which cases it has learned from.
    silent = {one.version for one in catalog.versions.that_saw_case(record.domain, "")}
    card = model_card(record, run, pictures is not None, record.reference not in silent)
    members = {
        "backbone.safetensors": store.read(record.backbone_digest),
        "domain.safetensors": store.read(record.domain_digest),
        "spec.json": _json(record.spec),
        "plan.json": _json(record.plan),
        "metrics.json": _json(metrics),
        "probe.safetensors": store.read(probe["input"]),
        "provenance.json": provenance.model_dump_json(indent=2).encode(),
        "README.md": card.encode(),
    }
    if pictures is not None:
        members["pictures.png"] = pictures
    write_bundle(path, record.reference, members, key)
    return path


def import_bundle(
    settings: Settings, path: Path, trusted: Collection[Ed25519PublicKey] = ()
) -> Imported:
    """Verify a bundle, and publish what it holds as the next version of its domain.

    Again, it is the version that is there already, which gets the scores that it lacks; one that
    was made here, or came in a signed bundle, gets them from a trusted signer alone. A version made
    with a plugin's code needs that plugin on this machine: bundles carry no code.

    Raises:
        BundleUnsafe, BundleSchema, BundleAltered, BundleUntrusted: as `read_bundle`.
        InvalidSpec, IncompatibleParts: its parts do not fit together; nothing was stored.
        NotWritable, DiskFull
    """
    contents = read_bundle(path, trusted)
    parts = parts_of(contents, str(path))
    catalog, store = Catalog.open(settings.database_url), WeightStore(settings.weights_dir)
    _require_plugin(settings, catalog, parts.spec, parts.new.plugin_digest, path)
    for tensors in parts.weights.values():
        store.put(tensors)
    # Files are there; now the rows.
    run = RunRecord(**dict(parts.provenance.run) | LOCAL_TO_A_MACHINE)
    taken = catalog.imports.take(parts.new, run, trusted=bool(trusted))
    return Imported(taken.record, contents.signer, taken.new, taken.added, taken.kept)


def _as_made(record: VersionRecord, run: RunRecord) -> RunRecord:
    """The run as it was where the version was made: of one that came in a bundle, the catalog has
    neither the base nor the domains that it does not know."""
    if run.directory or not (origin := record.metrics.get(ORIGIN)):
        return run
    domains = tuple(origin.get("trained_with", run.domains))
    return run.model_copy(update={"domains": domains, "base_version": origin.get("base")})


def _provenance(record: VersionRecord, run: RunRecord) -> Provenance:
    prints = {
        name: {key: text for key, text in one.items() if key in Fingerprint.model_fields}
        for name, one in run.fingerprints.items()
    }
    named = record.model_dump(include=set(Provenance.model_fields))
    told = run.model_dump() | LOCAL_TO_A_MACHINE | {"fingerprints": prints}
    try:
        return Provenance.model_validate(named | {"run": told, "base_version": run.base_version})
    except ValidationError as error:
        raise IncompatibleParts(
            f"{record.reference} cannot travel:\n{list_faults(error)}",
            f"If its run has not ended, go on with it: u2net train --resume {run.id}",
        ) from error


def _require_plugin(
    settings: Settings, catalog: Catalog, spec: DomainSpec, digest: str, path: Path
) -> None:
    with_hooks(
        spec,
        digest,
        lambda: find_added(spec.name, settings, catalog).working,
        str(path),
        f"Get that plugin, read its code, and add it: u2net domain add {spec.name} --path FOLDER;"
        " then import again.",
    )


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode()
