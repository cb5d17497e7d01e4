"""Whether a domain's part and a backbone belong together; and if not, why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

from pydantic import ValidationError

from u2net_platform.catalog.records import NewVersion
from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import IncompatibleParts
from u2net_platform.model.topology import LEVELS, Architecture, Topology, Triple

# What no plan exceeds: a network or a patch that is larger would be built only to fill the memory.
LARGEST_CHANNELS, LARGEST_BATCH, LARGEST_PATCH_VOXELS = 64, 1024, 1 << 25
LARGEST_SPACING_MM = 1000.0


def fitting(part: NewVersion, backbone: NewVersion, where: str) -> tuple[Architecture, Topology]:
    """Of what shape the backbone and the domain's part are, once they are known to fit.

    Raises:
        InvalidSpec
        IncompatibleParts: with every reason; `where` names the parts.
    """
    found = misfits(part, backbone, where)
    if found:
        raise IncompatibleParts(
            f"The parts of {where} do not fit together: {'; '.join(found)}",
            "Use the backbone, spec and plan that the domain was trained with.",
        )
    architecture = Architecture.model_validate(backbone.backbone_architecture)
    return architecture, Topology.model_validate(part.architecture)


def misfits(part: NewVersion, backbone: NewVersion, where: str) -> list[str]:
    """Why the domain's part of one version does not fit the backbone of another; empty if it does.

    Nothing is built: what is compared are descriptions.

    Raises:
        InvalidSpec
    """
    spec = DomainSpec.parse(part.spec, f"the spec of {where}")
    try:
        architecture = Architecture.model_validate(backbone.backbone_architecture)
        own = Architecture.model_validate(part.backbone_architecture)
        topology, plan = Topology.model_validate(part.architecture), Plan.model_validate(part.plan)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return [f"the {error.title.lower()} cannot be read ({faults})"]
    found = []
    if spec.name != part.domain:
        found.append(f"the weights are {part.domain}'s, the spec is {spec.name}'s")
    if own != architecture:
        found.append(
            f"the domain is made for {_shown(own)}, the backbone is {_shown(architecture)}"
        )
    if part.backbone_digest != backbone.backbone_digest:
        found.append(
            f"the domain was trained on backbone {part.backbone_digest[:12]}, "
            f"this is {backbone.backbone_digest[:12]}"
        )
    return [*found, *faults_of(spec, plan, topology, own)]


def faults_of(
    spec: DomainSpec, plan: Plan, topology: Topology, architecture: Architecture
) -> Iterator[str]:
    """Where a domain's parts contradict each other, or ask for more than any can use."""
    yield from _differences(spec, plan, topology, architecture)
    yield from _excesses(plan, topology, architecture)


def geometry_of(
    plan: Plan, architecture: Architecture
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Kernels and strides: the domain's own; in the paper's architecture all have the same."""
    if architecture.name == "paper":
        return ((3, 3, 3),) * LEVELS, ((2, 2, 2),) * (LEVELS - 1)
    return plan.kernels_zyx, plan.strides_zyx


def _differences(
    spec: DomainSpec, plan: Plan, topology: Topology, architecture: Architecture
) -> Iterator[str]:
    kernels, strides = geometry_of(plan, architecture)
    declared = spec.geometry.spacing_zyx_mm
    rows = (
        ("classes", "network", topology.classes, "spec", spec.classes),
        ("channels", "network", topology.in_channels, "spec", len(spec.channels)),
        ("kernels", "network", topology.kernels_zyx, "plan", kernels),
        ("strides", "network", topology.strides_zyx, "plan", strides),
        ("channels of statistics", "plan", len(plan.statistics or spec.channels), "spec",
         len(spec.channels)),
        ("spacing", "plan", plan.spacing_zyx_mm, "spec",
         plan.spacing_zyx_mm if declared == "median" else declared),
    )  # fmt: skip
    if unknown := {*plan.keep_largest, *plan.places} - set(spec.class_names):
        yield f"classes: the plan speaks of {sorted(unknown)}, which the spec has not"
    border, asked = plan.border, spec.postprocessing.border
    if border and not (
        asked and border.axis == asked.axis and {*border.classes} == {*asked.between}
    ):
        yield f"border: the plan has one between {' and '.join(border.classes)}, the spec has not"
    for what, first, one, second, other in rows:
        if one != other:
            yield f"{what}: the {first} has {one}, the {second} {other}"


def _excesses(plan: Plan, topology: Topology, architecture: Architecture) -> Iterator[str]:
    bounds = {
        "strides": (1, 2, tuple(chain(*plan.strides_zyx))),
        "kernels": (1, 3, tuple(chain(*plan.kernels_zyx))),
        "sides of the patch": (1, math.inf, plan.patch_zyx),
        "voxels of the patch": (1, LARGEST_PATCH_VOXELS, (math.prod(plan.patch_zyx),)),
        "voxels of the common patch": (
            1, LARGEST_PATCH_VOXELS, (math.prod(architecture.common_patch_zyx or (1,)),)
        ),
        "patches a batch": (1, LARGEST_BATCH, (plan.batch_size,)),
        "spacing, mm": (1e-4, LARGEST_SPACING_MM, plan.spacing_zyx_mm),
        "channels": (1, LARGEST_CHANNELS, (topology.in_channels,)),
    }  # fmt: skip
    for what, (low, high, values) in bounds.items():
        if not all(low <= value <= high for value in values):
            yield f"{what}: {values}, where {low} to {high} are possible"


def _shown(architecture: Architecture) -> str:
    return f"{architecture.name} with {architecture.convolutions} convolutions"
