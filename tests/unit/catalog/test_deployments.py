from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, Page, RunRecord, Slot
from u2net_platform.errors import (
    Conflict,
    InvalidSlot,
    NotEvaluated,
    NothingToRollBack,
    UnknownDomain,
    UnknownRecord,
)

HEART = Slot(domain="heart")
NORTH = Slot(domain="heart", site="north")
EVALUATED = {"test": {"overall": {"dice": 0.9}, "classes": {}}}
PROCESSES, EACH = 8, 125


@pytest.fixture
def five(
    trained: Catalog, new_version: Callable[..., NewVersion], new_run: Callable[..., RunRecord]
) -> Catalog:
    """heart:1 to heart:5 on two backbones, of which the last was never evaluated."""
    split = {"heart": {"split": {"test": ["P1"]}}}
    trained.runs.create(new_run(id="tested", fingerprints=split))
    for k in range(5):
        backbone, metrics = "bbbcc"[k] * 64, EVALUATED if k < 4 else {}
        trained.versions.publish(
            new_version(backbone_digest=backbone, metrics=metrics, run_id="tested")
        )
    return trained


def test_what_was_deployed_last_is_in_service(five: Catalog) -> None:
    for number in (1, 3):
        done = five.deployments.deploy(HEART, number, "ann", "better")
    assert (done.version, done.previous, done.actor, done.reason) == (
        "heart:3",
        "heart:1",
        "ann",
        "better",
    )
    assert five.deployments.in_service(HEART) == done
    assert five.find("heart@champion").reference == "heart:3"
    assert five.find("heart").reference == "heart:5"


def test_a_version_in_service_is_not_deployed_again(five: Catalog) -> None:
    first = five.deployments.deploy(HEART, 1, "ann")
    assert five.deployments.deploy(HEART, 1, "bob") == first
    assert len(five.deployments.history()) == 1


@pytest.mark.parametrize(
    "alias", ["Bad Alias", "", "latest", "v1", "../x", "a" * 64, "champion@x", "x/y", "x\n"]
)
def test_a_name_that_no_reference_can_have_is_refused(five: Catalog, alias: str) -> None:
    with pytest.raises(InvalidSlot):
        five.deployments.deploy(Slot(domain="heart", alias=alias), 1, "ann")
    if alias not in ("latest", "v1"):
        with pytest.raises(InvalidSlot):
            five.deployments.deploy(Slot(domain="heart", site=alias), 1, "ann")
    with pytest.raises(InvalidSlot):
        five.deployments.deploy(HEART, 1, "a" * 129)
    assert five.deployments.history() == []


def test_a_site_has_its_own_or_what_is_everywhere(five: Catalog) -> None:
    five.deployments.deploy(HEART, 1, "ann")
    assert five.find("heart@champion/north").number == 1
    five.deployments.deploy(NORTH, 2, "ann")
    assert five.find("heart@champion/north").number == 2
    assert five.find("heart@champion/south").number == 1
    assert five.find("heart@champion").number == 1


def test_rollback_goes_back_step_by_step(five: Catalog) -> None:
    for number in (1, 2, 3):
        five.deployments.deploy(HEART, number, "ann")
    back = [five.deployments.rollback(HEART, "bob", "worse").version for _ in range(2)]
    assert back == ["heart:2", "heart:1"]
    five.deployments.deploy(HEART, 4, "ann")
    # What was in service before heart:4 was heart:1, whatever had been tried in between.
    assert five.deployments.rollback(HEART, "bob").version == "heart:1"
    history = five.deployments.history("heart")
    assert [(one.action, one.previous, one.version) for one in history] == [
        ("rollback", "heart:4", "heart:1"),
        ("deploy", "heart:1", "heart:4"),
        ("rollback", "heart:2", "heart:1"),
        ("rollback", "heart:3", "heart:2"),
        ("deploy", "heart:2", "heart:3"),
        ("deploy", "heart:1", "heart:2"),
        ("deploy", None, "heart:1"),
    ]


def test_only_an_evaluated_version_is_deployed_and_a_forced_one_is_marked(five: Catalog) -> None:
    with pytest.raises(NotEvaluated, match="heart:5") as caught:
        five.deployments.deploy(HEART, 5, "ann")
    assert "u2net evaluate heart:5" in caught.value.hint
    assert five.deployments.history() == []
    assert five.deployments.deploy(HEART, 5, "ann", force=True).forced
    assert not five.deployments.deploy(HEART, 4, "ann", force=True).forced
    assert five.deployments.rollback(HEART, "ann").forced


def test_a_version_that_has_no_test_cases_is_not_sent_to_be_evaluated(
    trained: Catalog, new_version: Callable[..., NewVersion]
) -> None:
    # As a run of `--fold all` or of a coordinator leaves it, or one that came in a bundle.
    trained.versions.publish(new_version())
    with pytest.raises(NotEvaluated, match=r"heart:1 .* names no test cases") as caught:
        trained.deployments.deploy(HEART, 1, "ann")
    assert "--data FOLDER --keep" in caught.value.hint
    assert trained.deployments.deploy(HEART, 1, "ann", force=True).forced


def test_a_version_replaces_what_it_was_held_against_and_nothing_else(five: Catalog) -> None:
    first = five.deployments.replace(None, NORTH, 1, "ann", "better")
    five.deployments.deploy(NORTH, 2, "bob")
    for known in (None, first):
        with pytest.raises(Conflict, match="heart@champion/north has changed"):
            five.deployments.replace(known, NORTH, 3, "ann", "better")
    now = five.deployments.in_service(NORTH)
    assert five.deployments.replace(now, NORTH, 3, "ann", "better").previous == "heart:2"


def test_what_is_not_there_is_named(five: Catalog) -> None:
    with pytest.raises(UnknownDomain, match="spleen"):
        five.deployments.deploy(Slot(domain="spleen"), 1, "ann")
    with pytest.raises(UnknownRecord, match="version 9"):
        five.deployments.deploy(HEART, 9, "ann")
    with pytest.raises(UnknownRecord, match="heart@champion/north"):
        five.deployments.in_service(NORTH)
    with pytest.raises(NothingToRollBack):
        five.deployments.rollback(HEART, "ann")
    with pytest.raises(UnknownRecord, match="nothing of its own"):
        five.deployments.withdraw(HEART, "ann")


def test_a_first_deployment_is_rolled_back_to_nothing_and_no_further(five: Catalog) -> None:
    five.deployments.deploy(HEART, 1, "ann")
    for _ in range(2):
        assert five.deployments.deploy(NORTH, 2, "ann").previous is None
        assert five.find("heart@champion/north").number == 2
        back = five.deployments.rollback(NORTH, "ann")
        assert (back.version, back.previous, back.backbone_digest) == (None, "heart:2", None)
        assert five.find("heart@champion/north").number == 1
        with pytest.raises(NothingToRollBack, match="heart@champion/north"):
            five.deployments.rollback(NORTH, "ann")
    assert [str(one.slot) for one in five.deployments.current()] == ["heart@champion"]


def test_what_is_withdrawn_is_out_of_service_and_comes_back_by_a_rollback(five: Catalog) -> None:
    five.deployments.deploy(HEART, 1, "ann")
    five.deployments.deploy(NORTH, 2, "ann")
    done = five.deployments.withdraw(NORTH, "bob", "as everywhere")
    assert (done.action, done.version, done.previous) == ("withdraw", None, "heart:2")
    assert five.find("heart@champion/north").number == 1
    with pytest.raises(UnknownRecord, match="heart@champion/north has nothing of its own"):
        five.deployments.withdraw(NORTH, "bob")
    five.deployments.withdraw(HEART, "bob")
    assert five.deployments.current() == []
    with pytest.raises(UnknownRecord, match="Nothing is in service as heart@champion/north"):
        five.find("heart@champion/north")
    five.deployments.deploy(NORTH, 3, "ann")
    undone = [five.deployments.rollback(NORTH, "bob").version for _ in range(3)]
    assert undone == [None, "heart:2", None]


@pytest.mark.parametrize("actor", ["", "a" * 129])
def test_who_rolls_back_or_withdraws_has_a_name_that_every_database_takes(
    five: Catalog, actor: str
) -> None:
    for number in (1, 2):
        five.deployments.deploy(HEART, number, "ann")
    for change in (five.deployments.rollback, five.deployments.withdraw):
        with pytest.raises(InvalidSlot, match="--by"):
            change(HEART, actor)
    assert five.find("heart@champion").number == 2


def test_a_site_without_a_name_is_not_everywhere(five: Catalog) -> None:
    """As where a script's variable is not set."""
    for number in (1, 2):
        five.deployments.deploy(HEART, number, "ann")
    nowhere = Slot(domain="heart", site="")
    for change in (five.deployments.rollback, five.deployments.withdraw):
        with pytest.raises(InvalidSlot, match="no name of site"):
            change(nowhere, "ann")
    assert five.find("heart@champion").number == 2


def test_what_is_in_service_is_found_by_domain_alias_site_and_backbone(
    five: Catalog, new_version: Callable[..., NewVersion]
) -> None:
    five.versions.publish(new_version(domain="liver", metrics=EVALUATED))
    slots = [HEART, NORTH, Slot(domain="heart", alias="trial"), Slot(domain="liver")]
    for slot, number in zip(slots, (1, 4, 2, 1), strict=True):
        five.deployments.deploy(slot, number, "ann")
    five.deployments.deploy(HEART, 3, "ann")

    def found(**wanted: Any) -> list[str]:
        return [f"{one.slot}={one.version}" for one in five.deployments.current(**wanted)]

    everything = [
        "heart@champion=heart:3",
        "heart@champion/north=heart:4",
        "heart@trial=heart:2",
        "liver@champion=liver:1",
    ]
    assert found() == everything
    assert found(domain="liver") == everything[3:]
    assert found(site="north") == everything[1:]
    assert found(site="north", alias="champion", domain="heart") == everything[1:2]
    assert found(site="south") == [everything[0], *everything[2:]]
    five.deployments.withdraw(NORTH, "ann")
    assert found(site="north") == [everything[0], *everything[2:]]
    five.deployments.rollback(NORTH, "ann")
    assert found(alias="trial") == everything[2:3]
    assert found(backbone="b" * 8) == [everything[0], *everything[2:]]
    assert found(domain="liver", backbone="b" * 8) == everything[3:]
    assert found(page=Page(limit=2, offset=1)) == everything[1:3]


def publish_and_deploy(url: str, version: NewVersion, worker: int) -> None:
    catalog = Catalog.open(url)
    for k in range(EACH):
        number = catalog.versions.publish(version).number
        catalog.deployments.deploy(HEART, number, f"worker {worker}")
        if k % 5 == 4:
            catalog.deployments.rollback(HEART, f"worker {worker}")


def test_processes_that_publish_deploy_and_roll_back_at_once_leave_a_consistent_history(
    trained: Catalog, new_version: Callable[..., NewVersion], url: str
) -> None:
    context = multiprocessing.get_context("spawn")
    version = new_version(metrics=EVALUATED)
    workers = [
        context.Process(target=publish_and_deploy, args=(url, version, worker))
        for worker in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES

    numbers = [version.number for version in trained.versions.list("heart")]
    assert numbers == list(range(1, PROCESSES * EACH + 1))
    history = trained.deployments.history("heart")[::-1]
    assert len(history) == PROCESSES * (EACH + EACH // 5)
    assert [one.previous for one in history] == [None, *(one.version for one in history[:-1])]
    service = []  # what the same changes, one after the other, would have left
    for one in history:
        if one.action == "deploy":
            service.append(one.version)
        else:
            service.pop()
        assert one.version == service[-1]
