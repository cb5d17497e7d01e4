from __future__ import annotations

import sqlite3

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, Slot, VersionRecord
from u2net_platform.errors import Conflict, InvalidRule, NotEvaluated, RuleNotMet
from u2net_platform.workflows.promote import parse_rule, promote

SLOT = Slot(domain="bright")


def scores(dice: float, hd95_mm: float | None) -> dict[str, object]:
    overall = {"dice": dice, "hd95_mm": hd95_mm, "surface_dice": 0.5}
    return {"test": {"overall": overall, "classes": {"organ": overall}}}


@pytest.fixture
def catalog(settings, publish_bright) -> Catalog:
    """bright:1 with Dice 0.9, bright:2 with 0.95 but no HD95, bright:3 never evaluated."""
    catalog = Catalog.open(settings.database_url)
    for metrics in (scores(0.9, 3), scores(0.95, None)):
        record = publish_bright()
        catalog.versions.add_metrics("bright", record.number, metrics)
    publish_bright()
    return catalog


@pytest.mark.parametrize(
    "rule",
    [
        "dice >= 0.9",
        "dice<=0.9 and dice > 0.1",
        "organ.hd95_mm < 3.5",
        "surface_dice >= current",
        "organ.dice > 0.8 and hd95_mm <= 3",
    ],
)
def test_a_version_that_meets_the_rule_goes_into_service(catalog: Catalog, rule: str) -> None:
    done = promote(catalog, catalog.find("bright:1"), SLOT, rule, "ann")
    assert (done.version, done.reason) == ("bright:1", f"promoted: {rule}")


@pytest.mark.parametrize("rule", ["dice > 0.9", "dice >= 0.9 and hd95_mm < 3", "organ.dice < 0.5"])
def test_one_that_does_not_stays_out_and_the_score_is_told(catalog: Catalog, rule: str) -> None:
    broken = rule.rpartition(" and ")[2]
    with pytest.raises(RuleNotMet, match=rf"{broken} does not hold \((0.9|3)\)"):
        promote(catalog, catalog.find("bright:1"), SLOT, rule, "ann")
    assert catalog.deployments.history() == []


def test_a_distance_that_failed_cases_have_no_part_in_lets_nothing_into_service(
    catalog: Catalog,
) -> None:
    means = scores(0.9, 1)["test"] | {"cases": 40, "failures": 39}
    catalog.versions.add_metrics("bright", 3, {"test": means})
    version = catalog.find("bright:3")
    with pytest.raises(RuleNotMet, match=r"hd95_mm < 5 does not hold \(39 of 40 cases failed"):
        promote(catalog, version, SLOT, "hd95_mm < 5", "ann")
    assert promote(catalog, version, SLOT, "dice >= 0.9", "ann").version == "bright:3"


def test_it_is_held_against_what_is_in_service(catalog: Catalog) -> None:
    promote(catalog, catalog.find("bright:2"), SLOT, "dice > current", "ann")  # nothing is there
    with pytest.raises(RuleNotMet, match=r"\(0\.9\)"):
        promote(catalog, catalog.find("bright:1"), SLOT, "dice > current", "ann")
    assert catalog.find("bright@champion").number == 2


def test_what_has_come_into_service_meanwhile_is_not_passed_over(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(catalog, catalog.find("bright:1"), SLOT, "dice > 0.8", "ann")
    reads = Catalog.find

    def then_another_is_quicker(self: Catalog, reference: str) -> VersionRecord:
        found = reads(self, reference)
        self.deployments.deploy(SLOT, 2, "bob")
        return found

    lesser = catalog.find("bright:1")
    monkeypatch.setattr(Catalog, "find", then_another_is_quicker)
    with pytest.raises(Conflict, match="changed meanwhile"):
        promote(catalog, lesser, SLOT, "dice >= current", "ann")
    assert catalog.deployments.in_service(SLOT).version == "bright:2"


def test_scores_of_other_cases_are_not_compared(catalog: Catalog, settings) -> None:
    promote(catalog, catalog.find("bright:1"), SLOT, "dice > current", "ann")
    run = catalog.runs.get(catalog.find("bright:1").run_id)
    better = {name: getattr(catalog.find("bright:2"), name) for name in NewVersion.model_fields}

    def version_of(name: str, **changed: object) -> VersionRecord:
        noted = {"bright": run.fingerprints["bright"] | changed}
        catalog.runs.create(run.model_copy(update={"id": name, "fingerprints": noted}))
        return catalog.versions.publish(NewVersion(**better | {"run_id": name}))

    other_fold = version_of("other", split={"test": ["case_4"]}, data_digest="f" * 64)
    foreign = version_of("foreign", split={}, data_digest="f" * 64)
    for version in (other_fold, foreign):
        with pytest.raises(Conflict, match="not known to be tested on the same") as caught:
            promote(catalog, version, SLOT, "dice > current", "ann")
        assert "--on NAME" in caught.value.hint
    travelled = version_of("travelled", split={})  # names of cases do not, their digest does
    assert promote(catalog, travelled, SLOT, "dice > current", "ann").version == "bright:6"
    promote(catalog, other_fold, SLOT, "dice > 0.9", "ann")


def test_the_name_of_a_class_may_hold_an_and() -> None:
    rule = "dice >= 0.9 and gray and white matter.dice > 0.5 and hd95_mm < current"
    found = [(one.label, one.metric) for one in parse_rule(rule)]
    assert found == [(None, "dice"), ("gray and white matter", "dice"), (None, "hd95_mm")]


def test_what_is_in_service_under_a_name_of_an_older_release_counts(
    settings, catalog: Catalog
) -> None:
    promote(catalog, catalog.find("bright:2"), SLOT, "dice > 0", "ann")
    old = Slot(domain="bright", alias="Bad Alias")
    with sqlite3.connect(settings.home / "catalog.db") as database:
        database.execute("UPDATE u2net_deployments SET alias = 'Bad Alias'")
    with pytest.raises(RuleNotMet):
        promote(catalog, catalog.find("bright:1"), old, "dice > current", "ann")


def test_a_score_that_is_missing_meets_no_rule(catalog: Catalog) -> None:
    with pytest.raises(RuleNotMet, match="no score"):
        promote(catalog, catalog.find("bright:2"), SLOT, "hd95_mm < 100", "ann")


def test_a_version_that_was_never_evaluated_is_not_promoted(catalog: Catalog) -> None:
    with pytest.raises(NotEvaluated):
        promote(catalog, catalog.find("bright:3"), SLOT, "dice >= 0", "ann")


def test_scores_of_another_data_set_may_count_instead(catalog: Catalog) -> None:
    with pytest.raises(NotEvaluated, match="ward"):
        promote(catalog, catalog.find("bright:3"), SLOT, "dice >= 0.5", "ann", on="ward")
    catalog.versions.add_metrics("bright", 3, {"external/ward": scores(0.6, 3)["test"]})
    with pytest.raises(RuleNotMet, match=r"\(0\.6\)"):
        promote(catalog, catalog.find("bright:3"), SLOT, "dice >= 0.7", "ann", on="ward")
    promote(catalog, catalog.find("bright:1"), SLOT, "dice >= 0.5", "ann")
    with pytest.raises(NotEvaluated, match="bright:1 has no scores on ward"):
        promote(catalog, catalog.find("bright:3"), SLOT, "dice >= current", "ann", on="ward")
    catalog.versions.add_metrics("bright", 1, {"external/ward": scores(0.5, 3)["test"]})
    done = promote(catalog, catalog.find("bright:3"), SLOT, "dice >= current", "ann", on="ward")
    assert (done.version, done.forced) == ("bright:3", False)
    assert done.reason == "promoted: dice >= current on ward"


def test_scores_elsewhere_are_no_test_scores(catalog: Catalog) -> None:
    catalog.versions.add_metrics("bright", 3, {"external/ward": scores(0.6, 3)["test"]})
    with pytest.raises(NotEvaluated, match="never evaluated on its test cases"):
        promote(catalog, catalog.find("bright:3"), SLOT, "dice >= 0", "ann")


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "dice",
        "dice >= x",
        "speed > 1",
        "dice >= 0.9 or dice < 1",
        "spleen.dice > 0",
        " and dice > 0",
        "dice > 0 and ",
    ],
)
def test_a_rule_that_cannot_be_read_is_named(catalog: Catalog, rule: str) -> None:
    with pytest.raises(InvalidRule):
        promote(catalog, catalog.find("bright:1"), SLOT, rule, "ann")
