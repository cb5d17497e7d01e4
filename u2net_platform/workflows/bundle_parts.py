"""What the members of a bundle say: each is held to a strict form before anything is built of it.

Sizes have bounds, numbers are finite, names are names; and all parts fit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from u2net_platform.catalog.imports import ORIGIN
from u2net_platform.catalog.records import LARGEST, Json, NewVersion, RunRecord
from u2net_platform.catalog.references import REFERENCE, parse_reference
from u2net_platform.catalog.weights import serialised
from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import NAME_PATTERN, DomainSpec, list_faults
from u2net_platform.errors import BundleAltered, IncompatibleParts
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.partition import BACKBONE
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.workflows.bundle_file import Contents
from u2net_platform.workflows.compatibility import fitting
from u2net_platform.workflows.verify import probe_shape, prove

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:+ -]{1,32}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Reference = Annotated[str, Field(pattern=f"^({REFERENCE.pattern})$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(ge=0)]
AGAIN = "Get it again from where it was made."
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Probe(Strict):
    """As `take_probe` notes it."""

    input: Digest
    output: Digest
    machine: dict[Literal["torch", "processor", "instructions", "arithmetic"], str]


class Fingerprint(Strict):
    """A data set in numbers: neither names of cases, which may be patients', nor of files."""

    cases: Count | None = None
    spacing_zyx_mm: Annotated[list[Length], Field(min_length=3, max_length=3)] | None = None
    shape_zyx: Annotated[list[Count], Field(min_length=3, max_length=3)] | None = None
    extent_zyx_mm: Annotated[list[Length], Field(min_length=3, max_length=3)] | None = None
    data_digest: Digest | None = None


def _in_numbers(prints: dict[str, Json]) -> dict[str, Json]:
    for one in prints.values():
        Fingerprint.model_validate(one, strict=True)
    return prints


class Run(RunRecord):
    """A run that has ended, within what every catalog can hold."""

    model_config = ConfigDict(allow_inf_nan=False)

    id: RunId
    mode: Word
    domains: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    seed: Annotated[int, Field(ge=0, le=LARGEST)]
    fold: Count | None
    device: Annotated[str, Field(max_length=64)]
    fingerprints: Annotated[dict[str, Json], AfterValidator(_in_numbers)]
    step: Count
    status: Literal["completed", "interrupted", "failed"]


class Provenance(Strict):
    """Where a version comes from, and how its parts are called by digest."""

    domain: Name
    backbone_digest: Digest
    domain_digest: Digest
    plugin_digest: Digest
    architecture: Topology
    backbone_architecture: Architecture
    probe: Probe
    run: Run
    base_version: Reference | None


class Scores(Strict):
    dice: Share | None = None
    hd95_mm: Length | None = None
    surface_dice: Share | None = None


class TestScores(Strict):
    """As `Report.mean` makes them."""

    overall: Scores
    classes: dict[str, Scores]
    cases: Count | None = None
    failures: Count | None = None
    absent: dict[str, Count] = {}


class Validation(Strict):
    dice: Share | None


class Federation(Strict):
    sites: dict[Name, Count]


class Metrics(Strict):
    """All that is known of how good a version is; `bundle` is that of an earlier journey."""

    validation: Validation | None = None
    test: TestScores | None = None
    federation: Federation | None = None
    bundle: Json | None = None


@dataclass(frozen=True)
class Parts:
    """A version out of a bundle: what it is made of, and the network that it makes.

    weights: by digest, those of backbone, domain and probe.
    """

    provenance: Provenance
    new: NewVersion
    spec: DomainSpec
    plan: Plan
    weights: Mapping[str, dict[str, Tensor]]
    network: UniversalUNet


def parts_of(contents: Contents, where: str) -> Parts:
    """Check every member of a bundle, and build its network.

    Raises:
        BundleAltered: a member is not of the form that bundles have.
        InvalidSpec, IncompatibleParts: the parts do not fit together.
    """
    made = _read(Provenance, contents, "provenance.json", where)
    plan = _read(Plan, contents, "plan.json", where)
    metrics = _read(Metrics, contents, "metrics.json", where)
    spec = DomainSpec.parse(_json(contents, "spec.json", where), f"the spec in {where}")
    # What is null is not known; a version that has a key is taken to have been scored.
    known = {
        key: one for key, one in _json(contents, "metrics.json", where).items() if one is not None
    }
    new = NewVersion(
        **made.model_dump(exclude={"run", "base_version"}),
        spec=_json(contents, "spec.json", where),
        plan=_json(contents, "plan.json", where),
        metrics=known | {ORIGIN: _origin(contents, made)},
        run_id=made.run.id,
    )
    architecture, topology = fitting(new, new, where)
    _check_names(contents, made, metrics, spec, where)
    weights = _weights(contents, made, where)
    network = build_network(architecture, {made.domain: topology})
    network.load_owner(BACKBONE, weights[made.backbone_digest])
    network.load_owner(made.domain, weights[made.domain_digest])
    _prove(network, made, weights[made.probe.input], where)
    return Parts(made, new, spec, plan, weights, network)


def _read(model: type[Model], contents: Contents, name: str, where: str) -> Model:
    try:
        return model.model_validate_json(contents.members[name], strict=True)
    except ValidationError as error:
        raise BundleAltered(f"{where}: {name} is at fault:\n{list_faults(error)}", AGAIN) from error


def _json(contents: Contents, name: str, where: str) -> Any:
    try:
        return from_json(contents.members[name], allow_inf_nan=False)
    except ValueError as error:
        raise BundleAltered(f"{where}: {name} cannot be read: {error}", AGAIN) from error


def _origin(contents: Contents, made: Provenance) -> dict[str, Any]:
    return {
        "sha256": contents.digest,
        "version": contents.manifest.version,
        "base": made.base_version,
        "trained_with": made.run.domains,
        "signer": contents.signer,
    }


def _check_names(
    contents: Contents, made: Provenance, metrics: Metrics, spec: DomainSpec, where: str
) -> None:
    if parse_reference(version := contents.manifest.version).domain != made.domain:
        raise _unfit(where, f"it is called {version}, and holds {made.domain}")
    if made.domain not in made.run.domains:
        raise _unfit(where, f"its run trained {', '.join(made.run.domains)}, not {made.domain}")
    scored = {*metrics.test.classes, *metrics.test.absent} if metrics.test else set()
    if unknown := scored - set(spec.class_names):
        raise _unfit(where, f"it has scores of {sorted(unknown)}, which are no classes of its spec")


def _weights(contents: Contents, made: Provenance, where: str) -> dict[str, dict[str, Tensor]]:
    digests = {
        "backbone.safetensors": made.backbone_digest,
        "domain.safetensors": made.domain_digest,
        "probe.safetensors": made.probe.input,
    }
    return {digest: _tensors(contents, name, digest, where) for name, digest in digests.items()}


def _tensors(contents: Contents, name: str, digest: str, where: str) -> dict[str, Tensor]:
    entry = contents.manifest.members.get(name)
    if entry is None or entry.sha256 != digest:
        raise _unfit(where, f"{name} is not what the version is made of")
    try:
        tensors: dict[str, Tensor] = load(contents.members[name])
        same = serialised(tensors) == contents.members[name]
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BundleAltered(f"{where}: {name} holds no weights", AGAIN) from error
    if not same:
        raise BundleAltered(f"{where}: {name} is not as this program writes it", AGAIN)
    for key, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise _unfit(where, f"{key} in {name} holds other than finite numbers of 32 bits")
    return tensors


def _prove(
    network: UniversalUNet, made: Provenance, probe: Mapping[str, Tensor], where: str
) -> None:
    """Run the network on its probe, before anything is stored."""
    shapes = {name: tuple(tensor.shape) for name, tensor in probe.items()}
    wanted = {"image": probe_shape(made.architecture)}
    if shapes != wanted:
        raise _unfit(where, f"its probe has {shapes}, where {wanted} belongs to such a network")
    output, digest = prove(network, made.domain, made.probe.model_dump(), probe["image"])
    if output == "changed":
        raise _unfit(where, f"its output on the probe is {digest}, not {made.probe.output}")


def _unfit(where: str, reason: str) -> IncompatibleParts:
    return IncompatibleParts(f"The parts of {where} do not fit together: {reason}", AGAIN)
