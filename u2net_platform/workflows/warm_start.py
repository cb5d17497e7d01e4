"""What a run that has a base begins with: weights, and the cases that they know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.model.topology import Architecture
from u2net_platform.workflows.learned_cases import learned_cases
from u2net_platform.workflows.prepare import PreparedDomain
from u2net_platform.workflows.request import Request

OTHER_MODALITY = 10.0  # farther than any difference of spacing


def based_on(catalog: Catalog, request: Request, base: VersionRecord) -> Request:
    """The request with the base's number, mode and architecture, and with what it begins with."""
    architecture = Architecture.model_validate(base.backbone_architecture)
    separable = architecture.convolutions == "separable"
    starts = _starts(catalog, request, base)
    versions = [base, *starts.values()]
    if request.adapts and request.warm_start == "auto":
        versions += _others(catalog, base, request.domains)
    learned = learned_cases(catalog, versions)
    return request.model_copy(
        update={
            "base": base.reference,
            "mode": "universal" if separable else "shared",
            "architecture": architecture.name,
            "starts": {name: version.reference for name, version in starts.items()},
            "learned": {name: tuple(sorted(learned[name])) for name in request.domains},
        }
    )


def _starts(catalog: Catalog, request: Request, base: VersionRecord) -> dict[str, VersionRecord]:
    """What domains begin with, where that is known before they are planned."""
    if not request.frozen:
        latest = _latest_on(catalog, base) | {base.domain: base}
        return {name: latest[name] for name in request.domains if name in latest}
    named = request.warm_start not in ("none", "auto")
    return {name: catalog.find(request.warm_start) for name in request.domains if named}


def with_nearest(
    catalog: Catalog, request: Request, base: VersionRecord, prepared: Mapping[str, PreparedDomain]
) -> Request:
    """The request with the nearest other domain's adapter as what its own begins with, if any is.

    Not its own older versions: a run has the budget that it says. Name one to go on with it.
    """
    ((name, one),) = prepared.items()
    found = nearest(_others(catalog, base, (name,)), one.plugin.spec, one.plan)
    return request.model_copy(update={"starts": {name: found.reference} if found else {}})


def _others(catalog: Catalog, base: VersionRecord, names: Sequence[str]) -> list[VersionRecord]:
    return [one for name, one in _latest_on(catalog, base).items() if name not in names]


def _latest_on(catalog: Catalog, base: VersionRecord) -> dict[str, VersionRecord]:
    """By domain, its last version on the base's backbone."""
    return {one.domain: one for one in catalog.versions.by_backbone(base.backbone_digest)}


def nearest(
    candidates: Iterable[VersionRecord], spec: DomainSpec, plan: Plan
) -> VersionRecord | None:
    """The version whose images are most like the new domain's; None if there are no candidates.

    The same modality comes first, then the smallest difference in spacing, then the later version.
    """
    return min(
        candidates,
        key=lambda one: (_distance(one, spec, plan), -one.number, one.domain),
        default=None,
    )


def _distance(version: VersionRecord, spec: DomainSpec, plan: Plan) -> float:
    pairs = zip(version.plan["spacing_zyx_mm"], plan.spacing_zyx_mm, strict=True)
    spacing = sum(abs(log(one / other)) for one, other in pairs)
    same = bool(version.spec["modality"] == spec.modality)
    return spacing if same else spacing + OTHER_MODALITY
