"""Which versions know data: by their own run, or through what they build on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, Page, RunRecord

Publish = Callable[..., None]


@pytest.fixture
def publish(
    trained: Catalog, new_version: Callable[..., NewVersion], new_run: Callable[..., RunRecord]
) -> Publish:
    """Publish a version of a run of its own, on data of which `1` stands for digest and cases."""

    def one(domain: str, data: str, backbone: str, base: str | None = None, **run: Any) -> None:
        split = {
            "training": [f"P{data}_a", f"scan[{data}]"],
            "validation": [f"P{data}_b"],
            "test": ["P9"],
        }
        prints = {domain: {"data_digest": data * 64, "split": split}}
        run = {"domains": (domain,), "fingerprints": prints, "base_version": base} | run
        trained.runs.create(new_run(id=f"run-of-{data}", **run))
        digest = backbone * 64
        new = new_version(domain=domain, run_id=f"run-of-{data}", backbone_digest=digest)
        trained.versions.publish(new)

    return one


def saw(catalog: Catalog, data: str, **page: int) -> list[tuple[str, bool | None]]:
    found = catalog.versions.that_saw(data * 8, Page(**page))
    return [(one.version, one.directly) for one in found]


def saw_case(catalog: Catalog, *case: str) -> list[tuple[str, bool | None]]:
    return [(one.version, one.directly) for one in catalog.versions.that_saw_case(*case)]


def test_versions_that_saw_data_are_those_of_its_runs_and_of_runs_that_build_on_them(
    trained: Catalog, publish: Publish
) -> None:
    publish("heart", "1", "b")
    publish("liver", "2", "b", "heart:1", kind="adapt")
    publish("liver", "3", "c", "liver:1", starts={"liver": "liver:1"})
    publish("heart", "4", "d")
    publish("liver", "5", "b", "heart:1", kind="adapt", starts={"liver": "heart:2"})

    on_first = [("liver:1", False), ("liver:2", False), ("liver:3", False)]
    assert saw(trained, "1") == [("heart:1", True), *on_first]
    assert saw(trained, "2") == [("liver:1", True), ("liver:2", False)]
    assert saw(trained, "4") == [("heart:2", True), ("liver:3", False)]
    assert saw(trained, "%") == []
    assert saw(trained, "1", limit=1, offset=1) == [("liver:1", False)]

    assert saw_case(trained, "heart", "P1_a") == saw(trained, "1")
    assert saw_case(trained, "heart", "P1_*") == saw(trained, "1")
    assert saw_case(trained, "heart", "P[4]_*") == saw(trained, "4")
    assert saw_case(trained, "heart", "scan[4]") == saw(trained, "4")
    # Watched: plan and choices come of it.
    assert saw_case(trained, "liver", "P2_b") == saw(trained, "2")
    for unseen in ("P2_b", "P9", "P1"):
        assert saw_case(trained, "heart", unseen) == []


def test_a_backbone_passes_on_what_it_learned_also_where_no_base_is_noted(
    trained: Catalog, publish: Publish
) -> None:
    publish("liver", "1", "b")
    publish("heart", "2", "b", kind="adapt")  # as a bundle leaves it
    assert saw(trained, "1") == [("heart:1", False), ("liver:1", True)]
    assert saw(trained, "2") == [("heart:1", True)]


def test_those_that_trained_one_backbone_together_know_each_other_s_data(
    trained: Catalog, publish: Publish
) -> None:
    publish("liver", "1", "b")
    publish("heart", "2", "b")
    publish("heart", "3", "c", "heart:1")
    assert saw(trained, "1") == [("heart:1", False), ("heart:2", False), ("liver:1", True)]


def test_a_base_passes_on_its_backbone_and_not_the_domain_that_was_adapted_to_it(
    trained: Catalog, publish: Publish
) -> None:
    publish("liver", "1", "b")
    publish("heart", "2", "b", "liver:1", kind="adapt")
    publish("liver", "3", "b", "heart:1", kind="adapt")
    publish("liver", "4", "c", "heart:1")
    assert saw(trained, "2") == [("heart:1", True)]
    assert [name for name, _ in saw(trained, "1")] == ["heart:1", "liver:1", "liver:2", "liver:3"]


@pytest.mark.parametrize(
    "origin",
    [{"base": "heart:7", "trained_with": ["liver"]}, {"trained_with": ["liver", "heart"]}],
)
def test_a_version_cannot_say_what_its_base_or_companion_knew_that_did_not_come_with_it(
    trained: Catalog,
    publish: Publish,
    new_version: Callable[..., NewVersion],
    new_run: Callable[..., RunRecord],
    origin: dict[str, Any],
) -> None:
    publish("heart", "1", "b")
    came = new_version(domain="liver", backbone_digest="c" * 64, metrics={"bundle": origin})
    trained.imports.take(came, new_run(id="elsewhere", domains=("liver",), directory=""))
    assert saw_case(trained, "heart", "P1_a") == [("heart:1", True), ("liver:1", None)]


def test_what_builds_on_the_backbone_of_an_unknown_base_cannot_say_unless_its_maker_is_here(
    trained: Catalog,
    publish: Publish,
    new_version: Callable[..., NewVersion],
    new_run: Callable[..., RunRecord],
) -> None:
    metrics = {"bundle": {"base": "heart:7", "trained_with": ["liver"]}}
    for name, backbone in (("unknown", "b"), ("here", "c")):
        came = new_version(domain="liver", backbone_digest=backbone * 64, metrics=metrics)
        stranger = {"kind": "adapt", "domains": ("liver",), "directory": ""}
        trained.imports.take(came, new_run(id=name, **stranger))
    publish("liver", "1", "b", "liver:1", kind="adapt")
    publish("liver", "2", "d", "liver:1")
    publish("heart", "3", "c")
    cannot = [("liver:1", None), ("liver:2", None), ("liver:3", None), ("liver:4", None)]
    assert saw_case(trained, "heart", "P7") == cannot
    cannot[1] = ("liver:2", False)
    assert saw_case(trained, "heart", "P3_a") == [("heart:1", True), *cannot]


def test_what_a_federation_made_cannot_say_of_cases_that_its_run_does_not_name(
    trained: Catalog, publish: Publish
) -> None:
    publish("liver", "1", "b", kind="federate")  # as at a site
    publish("liver", "2", "b", "liver:1", kind="adapt")
    publish("liver", "3", "c")
    assert saw_case(trained, "heart", "P7") == [("liver:1", None), ("liver:2", None)]
    assert saw_case(trained, "liver", "P1_a") == [("liver:1", True), ("liver:2", False)]


def test_versions_that_cannot_say_are_named_whatever_their_domain(
    trained: Catalog, publish: Publish
) -> None:
    silent = {"liver": {}, "heart": {"data_digest": "1" * 64}}
    publish("liver", "1", "b", domains=("liver", "heart"), fingerprints=silent)
    publish("liver", "2", "b", "liver:1", kind="adapt")
    publish("heart", "3", "c", "liver:1")
    publish("heart", "4", "d")
    on_silent = [("liver:1", None), ("liver:2", None)]
    assert saw_case(trained, "heart", "P3_a") == [("heart:1", True), *on_silent]
    assert saw_case(trained, "heart", "P9") == [("heart:1", None), *on_silent]
