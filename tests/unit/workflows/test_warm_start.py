from __future__ import annotations

from datetime import UTC, datetime

import pytest

from u2net_platform.catalog.records import VersionRecord
from u2net_platform.data.plan import Plan
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.workflows.warm_start import nearest

SPEC = DomainSpec.parse(
    {
        "name": "new",
        "description": "a new domain",
        "modality": "CT",
        "channels": ["CT"],
        "labels": [{"name": "organ", "values": [1]}],
        "data": {"dataset": "made up", "licence": "CC0"},
    },
    "here",
)


def plan(*spacing: float) -> Plan:
    z, y, x = spacing
    return Plan(
        spacing_zyx_mm=(z, y, x),
        shape_zyx=(16, 16, 16),
        patch_zyx=(16, 16, 16),
        strides_zyx=((2, 2, 2),) * 5,
        kernels_zyx=((3, 3, 3),) * 6,
        batch_size=2,
        statistics=None,
    )


def version(name: str, modality: str, *spacing: float, number: int = 1) -> VersionRecord:
    return VersionRecord(
        domain=name,
        backbone_digest="b",
        backbone_architecture={},
        domain_digest=name,
        spec={"name": name, "modality": modality},
        plugin_digest="p",
        plan=plan(*spacing).model_dump(mode="json"),
        run_id="r",
        architecture={},
        id=1,
        number=number,
        spec_digest="s",
        plan_digest="p",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([("a", "CT", 1, 1, 1), ("b", "CT", 5, 0.8, 0.8)], "b"),
        ([("a", "MR", 5, 0.8, 0.8), ("b", "CT", 1, 1, 1)], "b"),  # the modality comes first
        ([("a", "MR", 1, 1, 1), ("b", "MR", 4, 0.8, 0.8)], "b"),
    ],
)
def test_the_nearest_has_the_same_modality_and_then_the_nearest_spacing(
    others: list[tuple[str, str, float, float, float]], expected: str
) -> None:
    versions = [version(*other) for other in others]
    for order in (versions, versions[::-1]):
        found = nearest(order, SPEC, plan(5, 0.8, 0.8))
        assert found is not None
        assert found.domain == expected


def test_of_versions_alike_the_later_one_is_taken_and_of_none_none() -> None:
    versions = [version("a", "CT", 1, 1, 1, number=number) for number in (1, 3, 2)]
    found = nearest(versions, SPEC, plan(1, 1, 1))
    assert found is not None
    assert found.number == 3
    assert nearest([], SPEC, plan(1, 1, 1)) is None
