from __future__ import annotations

from u2net_platform.catalog.records import ContributionRecord, RoundRecord


def _round(number: int, attempt: int, status: str, *sent: ContributionRecord) -> RoundRecord:
    backbone = f"{number:064x}" if status == "completed" else None
    return RoundRecord(
        run_id="run-1", number=number, attempt=attempt, status=status,
        backbone_digest=backbone, seconds=1.5, contributions=sent,
    )  # fmt: skip


def _sent(site: str, reason: str = "") -> ContributionRecord:
    return ContributionRecord(
        site=site, accepted=not reason, reason=reason, examples=16, steps=40,
        norm=None if reason else 0.25, bytes_down=3_568_640, bytes_up=2**40, seconds=7.25,
    )  # fmt: skip


def test_rounds_are_read_back_and_sites_counted(trained, new_version) -> None:

    rounds = [
        _round(1, 1, "repeated", _sent("north"), _sent("south", "NotFinite")),
        _round(1, 2, "completed", _sent("north"), _sent("south")),
        _round(2, 1, "completed", _sent("east", "NoReply"), _sent("north")),
    ]
    for one in rounds:
        trained.federations.end_round(one)
    assert trained.federations.rounds("run-1") == rounds
    assert trained.federations.sites("run-1") == {"north": 2, "south": 1}


def test_a_round_that_is_told_twice_is_there_once(trained, new_version) -> None:
    for _ in range(2):
        trained.federations.end_round(_round(1, 1, "completed", _sent("north")))
    (found,) = trained.federations.rounds("run-1")
    assert len(found.contributions) == 1


def test_versions_are_found_by_a_site_also_through_their_backbone(trained, new_version) -> None:
    trained.versions.publish(new_version())
    assert trained.versions.that_saw_site("north") == []
    trained.federations.end_round(
        _round(1, 1, "completed", _sent("north"), _sent("south", "TooLarge"))
    )
    thrown_away = _round(2, 1, "repeated", _sent("east"))
    trained.federations.end_round(thrown_away)
    assert [one.version for one in trained.versions.that_saw_site("north")] == ["heart:1"]
    for site in ("south", "east"):
        assert trained.versions.that_saw_site(site) == []


def test_a_version_that_tells_its_sites_is_found_by_them_where_there_are_no_rounds(
    trained, new_run, new_version
) -> None:
    # As in a site's own catalog, and as a bundle brings it.
    trained.runs.create(new_run(id="rounds-elsewhere", kind="federate"))
    told = {"federation": {"sites": {"north": 3, "south": 2}}, "test": {"overall": {}}}
    trained.versions.publish(new_version(run_id="rounds-elsewhere", metrics=told))
    trained.runs.create(new_run(id="adapted", kind="adapt", base_version="heart:1"))
    trained.versions.publish(new_version(run_id="adapted"))
    found = [(one.version, one.directly) for one in trained.versions.that_saw_site("south")]
    assert found == [("heart:1", True), ("heart:2", False)]
    assert trained.versions.that_saw_site("west") == []
    assert trained.federations.known_sites() == ["north", "south"]
