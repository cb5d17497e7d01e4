from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from typing import Any

import pytest
from typer.testing import CliRunner

from u2net_platform import __version__
from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import ContributionRecord, RoundRecord
from u2net_platform.cli.app import app
from u2net_platform.files import exclusive
from u2net_platform.workflows import register
from u2net_platform.workflows.request import LOCK_FILE

SCORES = {"overall": {"dice": 0.9}, "classes": {}}


@pytest.fixture
def u2net(settings, publish_bright, monkeypatch):
    """Call the command line on a home with bright:1 to bright:3, of which two are evaluated."""
    monkeypatch.setenv("U2NET_HOME", str(settings.home))
    for number in (1, 2, 3):
        publish_bright()
        if number < 3:
            metrics = {"test": SCORES}
            Catalog.open(settings.database_url).versions.add_metrics("bright", number, metrics)

    def call(*arguments: str, exit_code: int = 0) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == exit_code, result.output
        return result.stdout if exit_code == 0 or "--json" in arguments else result.stderr

    return call


@pytest.fixture
def federated(u2net, settings) -> None:
    """A round of the versions' run to which a site has contributed, and another has not."""
    catalog = Catalog.open(settings.database_url)
    sites = (
        ContributionRecord(site="north", accepted=True),
        ContributionRecord(site="south", accepted=False, reason="NoReply"),
    )
    catalog.federations.end_round(
        RoundRecord(
            run_id=catalog.find("bright:1").run_id, number=1, attempt=1, status="completed",
            backbone_digest="f" * 64, seconds=1.0, contributions=sites,
        )
    )  # fmt: skip


def data(text: str) -> Any:
    return json.loads(text)["data"]


def test_a_version_goes_into_service_and_back_in_one_step(u2net) -> None:
    assert "bright:1 is in service as bright@champion\n" in u2net("model", "deploy", "bright:1")
    done = u2net("model", "deploy", "bright:2", "--reason", "better", "--by", "ann")
    assert "bright:2 is in service as bright@champion, in place of bright:1" in done
    assert data(u2net("model", "show", "bright@champion", "--json"))["version"]["number"] == 2
    back = data(u2net("model", "rollback", "bright", "--by", "bob", "--reason", "worse", "--json"))
    assert (back["version"], back["previous"]) == ("bright:1", "bright:2")
    rows = list(csv.DictReader(io.StringIO(u2net("model", "history", "bright", "--csv"))))
    assert [(row["who"], row["why"], row["from"], row["to"]) for row in rows[:2]] == [
        ("bob", "worse", "bright:2", "bright:1"),
        ("ann", "better", "bright:1", "bright:2"),
    ]


def test_a_version_is_taken_out_of_service(u2net) -> None:
    u2net("model", "deploy", "bright:1", "--site", "north")
    done = u2net("model", "withdraw", "bright", "--site", "north", "--by", "ann", "--reason", "bad")
    assert "bright:1 is no longer in service as bright@champion/north\n" in done
    row, *_ = csv.DictReader(io.StringIO(u2net("model", "history", "bright", "--csv")))
    assert [row[key] for key in ("action", "from", "to", "why")] == [
        "withdraw",
        "bright:1",
        "-",
        "bad",
    ]
    assert "UnknownRecord" in u2net("model", "withdraw", "bright", exit_code=6)


def test_what_is_in_service_everywhere_stays_where_a_site_s_own_is_taken_away(u2net) -> None:
    u2net("model", "deploy", "bright:2")
    u2net("model", "deploy", "bright:1", "--site", "north")
    done = u2net("model", "withdraw", "bright", "--site", "north")
    assert "bright:1 is no longer in service as bright@champion/north; bright:2, as every" in done


def test_a_version_may_be_named_by_two_words_and_again_it_is_in_service_already(u2net) -> None:
    assert "bright:2 is in service as bright@champion\n" in u2net("model", "deploy", "bright", "2")
    again = u2net("model", "deploy", "bright:2")
    assert "bright:2 is already in service as bright@champion since 2" in again
    assert "InvalidSlot" in u2net("model", "deploy", "bright", "2", "--as", "", exit_code=6)
    assert "InvalidSlot" in u2net("model", "deploy", "bright", "2", "--by", "", exit_code=6)


def test_one_that_was_never_evaluated_is_refused_or_marked(u2net) -> None:
    assert "NotEvaluated" in u2net("model", "deploy", "bright:3", exit_code=6)
    forced = u2net("model", "deploy", "bright:3", "--force")
    assert "it was never evaluated" in forced
    assert "bright:3 (forced)" in u2net("catalog", "query", "deployed")


def test_promotion_says_which_condition_does_not_hold(u2net) -> None:
    rule = ("model", "promote", "bright:2", "--if")
    refused = json.loads(u2net(*rule, "dice > 0.95", "--json", exit_code=6))
    assert refused["error_code"] == "RuleNotMet"
    assert "dice > 0.95 does not hold (0.9)" in refused["message"]
    assert data(u2net(*rule, "dice >= 0.9", "--json"))["version"] == "bright:2"


def test_queries_answer_what_is_where_and_what_hangs_together(u2net) -> None:
    u2net("model", "deploy", "bright:1")
    u2net("model", "deploy", "bright:2", "--site", "north", "--as", "trial")
    deployed = data(u2net("catalog", "query", "deployed", "--json"))
    assert [(one["slot"]["site"], one["version"]) for one in deployed] == [
        (None, "bright:1"),
        ("north", "bright:2"),
    ]
    assert [
        one["version"]
        for one in data(u2net("catalog", "query", "deployed", "--site", "north", "--json"))
    ] == ["bright:1", "bright:2"]  # as bright@champion/north and bright@trial/north resolve
    for named in ("bright:3", deployed[0]["backbone_digest"][:10]):
        assert len(data(u2net("catalog", "query", "backbone", named, "--json"))) == 2
    page = CliRunner().invoke(app, ["catalog", "query", "deployed", "--limit", "1"])
    assert "--offset 1" in page.stderr


def test_lineage_is_asked_by_a_version_or_by_a_digest(u2net) -> None:
    found = data(u2net("catalog", "query", "data", "e" * 8, "--json"))
    assert [one["version"] for one in found] == ["bright:1", "bright:2", "bright:3"]
    assert found == data(u2net("catalog", "query", "data", "bright:2", "--json"))
    assert data(u2net("catalog", "query", "data", "abcdef", "--json")) == []


def test_a_check_says_whether_two_parts_fit_and_why_not(u2net, publish_bright) -> None:
    assert "bright:2 fits bright:1" in u2net("model", "check", "bright:1", "bright:2")
    publish_bright(backbone_digest="f" * 64)
    refused = json.loads(u2net("model", "check", "bright:4", "bright:1", "--json", exit_code=8))
    assert refused["error_code"] == "IncompatibleParts"
    (reason,) = refused["data"]["reasons"]
    assert "this is ffffffffffff" in reason


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (("site", "nowhere"), "No site nowhere is known here. Known are: north, south."),
        (("data", "abcdef"), "begins with abcdef"),
        (("backbone", "abcdef"), "begins with abcdef"),
        (("deployed", "--site", "nowhere"), "Nothing is in service"),
    ],
)
def test_a_question_about_what_is_not_known_says_so(
    u2net, federated, question: tuple[str, ...], told: str
) -> None:
    result = CliRunner().invoke(app, ["catalog", "query", *question, "--json"])
    assert (result.exit_code, data(result.stdout)) == (0, [])
    assert told in result.stderr


def test_sites_of_a_version_are_shown_and_versions_are_listed_as_csv(u2net, federated) -> None:
    assert "north (1 rounds)" in u2net("model", "show", "bright:1")
    assert data(u2net("model", "show", "bright:1", "--json"))["sites"] == {"north": 1}
    rows = list(csv.DictReader(io.StringIO(u2net("model", "list", "--csv"))))
    assert [(row["version"], row["test Dice"]) for row in rows] == [
        ("bright:1", "0.900"),
        ("bright:2", "0.900"),
        ("bright:3", "-"),
    ]


def test_a_patient_s_case_leads_to_the_versions_that_learned_from_it(u2net) -> None:
    found = data(u2net("catalog", "query", "case", "bright", "case_1*", "--json"))
    assert [one["version"] for one in found] == ["bright:1", "bright:2", "bright:3"]
    assert data(u2net("catalog", "query", "case", "bright", "case_0", "--json")) == []  # a test
    for case, told in (("case_0", "No version here learned"), ("case_O", "No run here has noted")):
        answer = CliRunner().invoke(app, ["catalog", "query", "case", "bright", case])
        assert told in answer.stderr
    assert "nose" in u2net("catalog", "query", "case", "nose", "case_1", exit_code=3)


def test_versions_that_came_in_a_bundle_are_said_not_to_tell_their_cases(u2net, settings) -> None:
    with sqlite3.connect(settings.home / "catalog.db") as database:
        database.execute("UPDATE u2net_run_domains SET fingerprint = '{}'")
    question = ("catalog", "query", "case", "bright", "case_1")
    assert [(one["version"], one["directly"]) for one in data(u2net(*question, "--json"))] == [
        ("bright:1", None),
        ("bright:2", None),
        ("bright:3", None),
    ]
    rows = csv.DictReader(io.StringIO(u2net(*question, "--csv")))
    assert {row["by"] for row in rows} == {"cannot say"}


def test_a_run_that_was_killed_is_told_from_one_at_work(u2net, settings) -> None:
    catalog = Catalog.open(settings.database_url)
    (run,) = catalog.runs.list()
    catalog.runs.update(run.id, "running", 1)

    def state() -> str:
        (row,) = csv.DictReader(io.StringIO(u2net("catalog", "query", "runs", "--csv")))
        return row["status"]

    assert state() == "running"  # on another machine
    with exclusive(settings.runs_dir / run.id / LOCK_FILE):
        assert state() == "running"
    assert state() == "interrupted"


def test_the_version_is_told(u2net) -> None:
    assert u2net("--version").strip() == __version__


def test_gc_tells_what_it_would_remove(u2net, settings) -> None:
    stray = settings.weights_dir / f"{'0' * 64}.safetensors"
    stray.write_bytes(b"1" * 2048)
    command = ("catalog", "gc", "--grace-hours", "0")
    assert "1 files, 0.0 MiB, could be removed" in u2net(*command, "--dry-run")
    assert stray.exists()
    assert re.search(rf"{stray.name}\n1 files", u2net(*command).replace("\n/", "/"))
    assert not stray.exists()


def test_what_is_in_service_is_said_before_mlflow_is_told(
    u2net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(register, "keep_registered", interrupted)
    told = json.loads(u2net("model", "deploy", "bright:1", "--json", exit_code=130))
    assert told["data"]["version"] == "bright:1"
