"""A version as one file: out of a catalog, and into another."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import (
    Json,
    NewVersion,
    RunRecord,
    VersionRecord,
    digest_of_json,
)
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.plan import Plan
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import (
    BundleAltered,
    DomainError,
    IncompatibleParts,
    UnknownDomain,
    UnknownRecord,
)
from u2net_platform.settings import Settings
from u2net_platform.workflows.add_domain import load_added
from u2net_platform.workflows.bundle_file import Contents, read_bundle, write_bundle
from u2net_platform.workflows.model_card import model_card
from u2net_platform.workflows.verify import verify

# Of a run's fingerprint: neither names of cases, which may be patients', nor anything from files.
KEPT_OF_FINGERPRINT = ("cases", "spacing_zyx_mm", "shape_zyx", "extent_zyx_mm", "data_digest")
LOCAL_TO_A_MACHINE: dict[str, Any] = {"directory": "", "mlflow_run_id": None, "base_version": None}


class Provenance(BaseModel):
    """Where a version comes from, and how its parts are called by digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    backbone_digest: str
    domain_digest: str
    plugin_digest: str
    architecture: Json
    backbone_architecture: Json
    probe: Json | None
    run: RunRecord
    base_version: str | None


@dataclass(frozen=True)
class Imported:
    """A version that came from a bundle. `new`: it was not there before."""

    record: VersionRecord
    signer: str | None
    new: bool


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
        NotWritable, DiskFull
    """
    catalog, store = Catalog.open(settings.database_url), WeightStore(settings.weights_dir)
    run = catalog.runs.get(record.run_id)
    prints = {
        name: {key: text for key, text in one.items() if key in KEPT_OF_FINGERPRINT}
        for name, one in run.fingerprints.items()
    }
    provenance = Provenance(
        domain=record.domain,
        backbone_digest=record.backbone_digest,
        domain_digest=record.domain_digest,
        plugin_digest=record.plugin_digest,
        architecture=record.architecture,
        backbone_architecture=record.backbone_architecture,
        probe=record.probe,
        run=run.model_copy(update=LOCAL_TO_A_MACHINE | {"fingerprints": prints}),
        base_version=run.base_version,
    )
    members = {
        "backbone.safetensors": _weights(store, record.backbone_digest),
        "domain.safetensors": _weights(store, record.domain_digest),
        "spec.json": _json(record.spec),
        "plan.json": _json(record.plan),
        "metrics.json": _json(record.metrics),
        "provenance.json": provenance.model_dump_json(indent=2).encode(),
        "README.md": model_card(record, run, pictures is not None).encode(),
    }
    if record.probe is not None:
        members["probe.safetensors"] = _weights(store, record.probe["input"])
    if pictures is not None:
        members["pictures.png"] = pictures
    write_bundle(path, record.reference, members, key)
    return path


def import_bundle(
    settings: Settings, path: Path, trusted: Collection[Ed25519PublicKey] = ()
) -> Imported:
    """Verify a bundle, and publish what it holds as the next version of its domain.

    Again, it is the version that is there already. A version made with a plugin's code needs that
    plugin on this machine: bundles carry no code.

    Raises:
        BundleUnsafe, BundleSchema, BundleAltered, BundleUntrusted: as `read_bundle`.
        InvalidSpec, IncompatibleParts: its parts do not fit together; nothing was published.
        NotWritable, DiskFull
    """
    contents = read_bundle(path, trusted)
    catalog, store = Catalog.open(settings.database_url), WeightStore(settings.weights_dir)
    provenance, new = _new_version(settings, catalog, contents, path)
    there = [
        one
        for one in catalog.versions.by_backbone(new.backbone_digest)
        if _parts_of(one) == _parts_of(new)
    ]
    _store_weights(store, contents, new, path)
    if there:
        return Imported(there[0], contents.signer, new=False)
    _prove(store, new, path)
    # Files are there; now the rows.
    if not _has_domain(catalog, new.domain):
        catalog.domains.add(new.spec, new.domain, new.plugin_digest, "bundle")
    run = _run(catalog, provenance)
    record = catalog.versions.publish(new.model_copy(update={"run_id": run.id}))
    return Imported(record, contents.signer, new=True)


def _new_version(
    settings: Settings, catalog: Catalog, contents: Contents, path: Path
) -> tuple[Provenance, NewVersion]:
    """The version as its members describe it, each of them checked."""
    try:
        provenance = Provenance.model_validate_json(contents.members["provenance.json"])
        spec, plan, metrics = (
            json.loads(contents.members[name])
            for name in ("spec.json", "plan.json", "metrics.json")
        )
        Plan.model_validate(plan)
        new = NewVersion(
            **provenance.model_dump(exclude={"run", "base_version"}),
            spec=spec,
            plan=plan,
            metrics=metrics
            | {
                "bundle": {
                    "sha256": contents.digest,
                    "version": contents.manifest.version,
                    "base": provenance.base_version,
                    "trained_with": provenance.run.domains,
                    "signer": contents.signer,
                }
            },
            run_id=provenance.run.id,
        )
    except (ValueError, TypeError, ValidationError) as error:
        raise BundleAltered(f"{path}: a part of it cannot be read", "Get it again.") from error
    checked = DomainSpec.parse(spec, f"the spec in {path}")
    if checked.name != new.domain or new.domain not in provenance.run.domains:
        raise IncompatibleParts(
            f"{path} has weights of {new.domain}, a spec of {checked.name} and a run of "
            f"{', '.join(provenance.run.domains)}",
            "Get it again from where it was made.",
        )
    _require_plugin(settings, catalog, DomainPlugin(checked, Path()), new.plugin_digest, path)
    return provenance, new


def _require_plugin(
    settings: Settings, catalog: Catalog, plain: DomainPlugin, digest: str, path: Path
) -> None:
    if plain.digest == digest:
        return
    try:
        found = load_added(plain.name, settings, catalog).digest
    except DomainError:
        found = None
    if found != digest:
        raise IncompatibleParts(
            f"{path} was made with a plugin's code that this machine does not have",
            f"Get that plugin, read its code, and add it: u2net domain add {plain.name} --path "
            "FOLDER; then import again.",
        )


def _store_weights(store: WeightStore, contents: Contents, new: NewVersion, path: Path) -> None:
    wanted = {"backbone.safetensors": new.backbone_digest, "domain.safetensors": new.domain_digest}
    if new.probe is not None:
        wanted["probe.safetensors"] = str(new.probe.get("input"))
    for name, digest in wanted.items():
        entry = contents.manifest.members.get(name)
        if entry is None or entry.sha256 != digest:
            raise IncompatibleParts(
                f"{name} of {path} is not what the version is made of",
                "Get it again from where it was made.",
            )
        try:
            stored = store.put(load(contents.members[name]))
        except SafetensorError as error:
            raise BundleAltered(f"{path}: {name} holds no weights", "Get it again.") from error
        if stored != digest:
            raise BundleAltered(f"{path}: {name} is not as this program writes it", "Get it again.")


def _prove(store: WeightStore, new: NewVersion, path: Path) -> None:
    """Build the network and run it on the probe, before anything names it."""
    record = VersionRecord.model_construct(**dict(new), number=1, id=0)
    (found,) = verify(store, [record], lambda _: None)
    if found.fault:
        raise IncompatibleParts(
            f"The parts of {path} do not fit together: {found.fault}",
            "Get it again from where it was made.",
        )


def _run(catalog: Catalog, provenance: Provenance) -> RunRecord:
    """The run that made the version, with those of its domains that this catalog has."""
    here = tuple(name for name in provenance.run.domains if _has_domain(catalog, name))
    prints = {name: one for name, one in provenance.run.fingerprints.items() if name in here}
    run = provenance.run.model_copy(update={"domains": here, "fingerprints": prints})
    for name in (run.id, f"{run.id}-{provenance.domain}"):
        try:
            found = catalog.runs.get(name)
        except UnknownRecord:
            return catalog.runs.create(run.model_copy(update={"id": name}))
        if provenance.domain in found.domains:
            return found
    raise AssertionError("a run of this name is this domain's")


def _has_domain(catalog: Catalog, name: str) -> bool:
    try:
        catalog.domains.get(name)
    except UnknownDomain:
        return False
    return True


def _parts_of(version: NewVersion) -> tuple[str, ...]:
    return (
        version.domain,
        version.backbone_digest,
        version.domain_digest,
        version.plugin_digest,
        digest_of_json(version.spec),
        digest_of_json(version.plan),
    )


def _weights(store: WeightStore, digest: str) -> bytes:
    store.get(digest)  # refuses a damaged file
    return store.path(digest).read_bytes()


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode()
