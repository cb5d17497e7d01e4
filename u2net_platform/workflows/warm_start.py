"""Whose adapter a new domain begins with."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import DomainSpec

OTHER_MODALITY = 10.0  # farther than any difference of spacing


def latest_on(catalog: Catalog, base: VersionRecord) -> dict[str, VersionRecord]:
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
