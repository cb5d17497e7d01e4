"""Which cases weights know, however they came to them."""

from __future__ import annotations

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord, VersionRecord
from u2net_platform.settings import Settings
from u2net_platform.workflows.learned_cases import learned_cases


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    return Catalog.open(settings.database_url)


def published(
    catalog: Catalog,
    domain: str,
    backbone: str,
    case: str,
    base: str | None = None,
    starts: dict[str, str] | None = None,
) -> VersionRecord:
    """A version of a run of one case, which adapts where it has a base on the same backbone."""
    catalog.domains.add({"name": domain}, domain, "a" * 64, "bundled")
    adapts = base is not None and catalog.find(base).backbone_digest == backbone * 64
    run = RunRecord(
        id=f"run-{case}", kind="adapt" if adapts else "train", mode="universal", domains=(domain,),
        recipe={}, seed=0, fold=0, device="cpu", directory="nowhere", base_version=base,
        starts=starts or {},
        fingerprints={domain: {"split": {"training": [case], "test": ["tested"]}}},
    )  # fmt: skip
    catalog.runs.create(run)
    return catalog.versions.publish(
        NewVersion(
            domain=domain, backbone_digest=backbone * 64, backbone_architecture={},
            domain_digest="d" * 64, spec={"name": domain}, plugin_digest="a" * 64, plan={},
            run_id=run.id, architecture={},
        )
    )  # fmt: skip


def test_what_came_before_counts_and_what_came_beside_does_not(catalog: Catalog) -> None:
    published(catalog, "heart", "b", "first")
    second = published(catalog, "heart", "c", "second", base="heart:1")
    published(catalog, "heart", "c", "beside", base="heart:2")  # adapted: the backbone stayed
    assert learned_cases(catalog, [second]) == {"heart": {"first", "second"}}


def test_a_backbone_tells_its_cases_through_a_version_that_came_from_elsewhere(
    catalog: Catalog,
) -> None:
    published(catalog, "heart", "b", "first")
    stranger = published(catalog, "spleen", "b", "foreign")
    found = learned_cases(catalog, [stranger])
    assert found == {"heart": {"first"}, "spleen": {"foreign"}}


def test_what_a_domain_began_with_counts(catalog: Catalog) -> None:
    published(catalog, "heart", "b", "first")
    warm = published(catalog, "heart", "c", "warm", starts={"heart": "heart:1"})
    assert learned_cases(catalog, [warm]) == {"heart": {"first", "warm"}}


def test_a_base_passes_on_its_backbone_and_not_the_domain_that_was_adapted_to_it(
    catalog: Catalog,
) -> None:
    published(catalog, "spleen", "b", "first")
    published(catalog, "heart", "b", "adapted", base="spleen:1")
    liver = published(catalog, "liver", "b", "third", base="heart:1")
    assert learned_cases(catalog, [liver]) == {"spleen": {"first"}, "liver": {"third"}}


def test_the_catalog_s_query_leads_on_exactly_where_this_leads_back(catalog: Catalog) -> None:
    published(catalog, "heart", "b", "first")
    published(catalog, "liver", "b", "beside")
    published(catalog, "spleen", "b", "adapted", base="heart:1")
    published(catalog, "liver", "b", "on-adapted", base="spleen:1")
    published(catalog, "heart", "c", "further", base="liver:2")
    published(catalog, "spleen", "d", "warm", starts={"spleen": "spleen:1"})
    published(catalog, "heart", "d", "both", base="spleen:2", starts={"heart": "heart:2"})
    published(catalog, "liver", "e", "alone")
    versions = catalog.versions.list()
    back = {
        (case, one.reference)
        for one in versions
        for cases in learned_cases(catalog, [one]).values()
        for case in cases
    }
    on = {
        (case, found.version)
        for one in versions
        for case in catalog.runs.get(one.run_id).cases(one.domain, "training")
        for found in catalog.versions.that_saw_case(one.domain, case)
    }
    assert on == back
    assert {name for case, name in on if case == "adapted"} == {"spleen:1", "spleen:2", "heart:3"}
