"""Sites that misbehave, through Flower's own messages: the honest ones alone make the backbone."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import Interrupted, QuorumNotReached
from u2net_platform.federation import client_app, site
from u2net_platform.federation.aggregation import Refused
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.local import LocalGrid
from u2net_platform.federation.messages import Ask, Order, unpack
from u2net_platform.federation.request import new_run
from u2net_platform.federation.site import Site
from u2net_platform.settings import PRODUCT
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Trainer

BACKBONE = "weights/backbone"

Change = Callable[[RecordDict], RecordDict]


class Answering:
    """The sites' ClientApp, where a site's k-th answer to `train` is changed before it leaves."""

    def __init__(self, site: str, *changes: Change | None) -> None:
        self._site, self._changes = site, iter(changes)

    def __call__(self, message: Message, context) -> Message:
        reply = client_app.app(message, context)
        mine = str(context.node_config["site-dir"]).endswith(self._site)
        if mine and message.metadata.message_type == "train":
            change = next(self._changes, None)
            if change is not None:
                return Message(change(reply.content), reply_to=message)
        return reply


def _arrays(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(content: RecordDict) -> RecordDict:
        record = content.array_records[BACKBONE]
        content[BACKBONE] = ArrayRecord(
            {name: Array(change(array.numpy())) for name, array in record.items()}
        )
        return content

    return apply


def _numbers(**changes: float) -> Change:
    def apply(content: RecordDict) -> RecordDict:
        content["counts"] = MetricRecord(dict(content.metric_records["counts"]) | changes)
        return content

    return apply


def _without(key: str) -> Change:
    def apply(content: RecordDict) -> RecordDict:
        return RecordDict({name: one for name, one in content.items() if name != key})

    return apply


def _held(part: str = "spec", /, **changes: object) -> Change:
    """The answer of a site whose one domain has another spec, or, where it is shared, plan."""

    def apply(content: RecordDict) -> RecordDict:
        held = json.loads(str(content.config_records["order"]["json"]))
        (domain,) = held["domains"].values()
        (domain[part] if part else domain).update(changes)
        content["order"] = ConfigRecord({"json": json.dumps(held)})
        return content

    return apply


def _domains(content: RecordDict) -> RecordDict:
    held = json.loads(str(content.config_records["order"]["json"]))
    ((name, one),) = held["domains"].items()
    held["domains"] |= {f"{name}{k}": one for k in range(100)}
    content["order"] = ConfigRecord({"json": json.dumps(held)})
    return content


def _bytes(data: bytes) -> Change:
    def apply(content: RecordDict) -> RecordDict:
        record = content.array_records[BACKBONE]
        content[BACKBONE] = ArrayRecord(
            {name: Array(one.dtype, one.shape, one.stype, data) for name, one in record.items()}
        )
        return content

    return apply


def _stranger(content: RecordDict) -> RecordDict:
    content["weights/spleen"] = content.array_records[BACKBONE]
    return content


FAULTS = {
    "NaN": (_arrays(lambda a: a * np.float32("nan")), "NotFinite"),
    "one infinity": (_arrays(lambda a: np.where(a == a.max(), np.float32("inf"), a)), "NotFinite"),
    "huge": (_arrays(lambda a: a + np.float32(1e6)), "TooLarge"),
    "wrong shape": (_arrays(lambda a: a[None]), "WrongShape"),
    "double": (_arrays(lambda a: a.astype(np.float64)), "WrongType"),
    "whole numbers": (_arrays(lambda a: a.astype(np.int64)), "WrongType"),
    "weight": (_numbers(examples=10**9), "WrongWeight"),
    "negative weight": (_numbers(examples=-1), "WrongWeight"),
    "weight that is no count": (_numbers(examples=2.5), "WrongWeight"),
    "more steps than were asked for": (_numbers(steps=50), "WrongWeight"),
    "a number that nobody asked for": (_numbers(**{"../x!": 1.0}), "BadMessage"),
    "no numbers": (_without("counts"), "BadMessage"),
    "no update": (_without(BACKBONE), "WrongKeys"),
    "a domain it does not hold": (_stranger, "WrongKeys"),
    "no bytes": (_bytes(b""), "BadMessage"),
    "bytes of an archive": (_bytes(b"PK\x03\x04"), "BadMessage"),
    "nothing": (lambda _: RecordDict(), "BadMessage"),
    "another name": (_held(name="../../etc"), "BadSpec"),
    "a spec that is none": (_held(labels=[]), "BadSpec"),
    "a book": (_held(description="x" * (1 << 20)), "BadMessage"),
    "a hundred domains": (_domains, "BadMessage"),
    "no digest": (_held("", plugin_digest="x" * 65), "BadMessage"),
    "a pattern without end": (_held(subject="(a{99999999999999})"), "BadSpec"),
    "a story": (
        lambda _: RecordDict({"answer": ConfigRecord({"failed": "/data/Mr. Doe: no file"})}),
        "Failed:dataMrDoenofile",
    ),
}


@pytest.fixture
def federate(settings, new_site, new_request):
    """Run two rounds of north and south; returns the run, its last backbone and its rounds."""

    def run(app=client_app.app, names=("north", "south"), **changes):
        sites = {name: new_site(name, f"fruit-{name}") for name in names}
        run_id = new_run(settings, new_request(*sites, **changes))
        Coordinator(settings, run_id, LocalGrid(sites, app), print).go()
        return Catalog.open(settings.database_url).federations.rounds(run_id)

    return run


def test_the_backbone_is_what_the_honest_sites_alone_give(federate) -> None:
    """Every fault in a round of its own."""
    length = {"rounds": len(FAULTS), "cycles": 1}
    alone = federate(names=("north",), **length)
    both = federate(Answering("south", *(change for change, _ in FAULTS.values())), **length)
    found = [{one.site: one.reason for one in done.contributions} for done in both]
    assert found == [{"north": "", "south": reason} for _, reason in FAULTS.values()]
    assert [o.backbone_digest for o in both] == [o.backbone_digest for o in alone]


def test_a_site_whose_round_was_refused_goes_on_from_the_one_before(federate) -> None:
    bad_once = federate(Answering("south", FAULTS["NaN"][0]), rounds=3)
    taken = [[one.site for one in done.contributions if one.accepted] for done in bad_once]
    assert taken == [["north"], ["north", "south"], ["north", "south"]]


def test_below_the_quorum_those_are_asked_again_whose_answer_is_missing(federate) -> None:
    asked: list[str] = []
    faulty = Answering("south", FAULTS["huge"][0])

    def app(message: Message, context) -> Message:
        if message.metadata.message_type == "train":
            asked.append(Path(context.node_config["site-dir"]).name)
        return faulty(message, context)

    rounds = federate(app, quorum=2)
    assert asked == ["north", "south", "south", "north", "south"]
    assert [one.accepted for one in rounds[0].contributions] == [True, False]
    assert [one.accepted for one in rounds[1].contributions] == [True, True]
    assert [(one.number, one.attempt, one.status) for one in rounds] == [
        (1, 1, "repeated"),
        (1, 2, "completed"),
        (2, 1, "completed"),
    ]
    undisturbed = federate(quorum=2)
    assert rounds[-1].backbone_digest == undisturbed[-1].backbone_digest


def test_a_round_that_never_has_its_quorum_fails_the_run(settings, federate) -> None:
    with pytest.raises(QuorumNotReached, match="south: NotFinite"):
        federate(Answering("south", *[FAULTS["NaN"][0]] * 9), quorum=2)
    (run,) = Catalog.open(settings.database_url).runs.list()
    assert run.status == "failed"


class Silent(LocalGrid):
    """South never answers."""

    def pull_messages(self, message_ids):
        south = {node.node_id for node in self.get_nodes() if node.name == "south"}
        return [
            one for one in super().pull_messages(message_ids)
            if one.metadata.src_node_id not in south or one.metadata.message_type != "train"
        ]  # fmt: skip


def test_a_resume_adds_to_the_attempts_that_failed(settings, new_site, new_request) -> None:
    sites = {name: new_site(name, f"fruit-{name}") for name in ("north", "south")}
    run = new_run(settings, new_request(*sites, quorum=2, attempts=2, rounds=1))
    app = Answering("south", *[FAULTS["NaN"][0]] * 2)
    with pytest.raises(QuorumNotReached, match="after 2 attempts"):
        Coordinator(settings, run, LocalGrid(sites, app), print).go()  # type: ignore[arg-type]
    Coordinator(settings, run, LocalGrid(sites), print).go()
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    assert [(one.attempt, one.status) for one in rounds] == [
        (1, "repeated"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert [one.reason for done in rounds for one in done.contributions if one.reason] == [
        "NotFinite",
        "NotFinite",
    ]


def test_cases_that_join_in_the_middle_of_a_run_are_for_the_next_one(
    settings, new_site, new_request, boxes, tmp_path
) -> None:
    """They would move others between training and test, unseen."""
    sites = {name: new_site(name, f"fruit-{name}") for name in ("north", "south")}
    data = shutil.copytree(boxes("fruit-south"), tmp_path / "data")
    text = (sites["south"] / "site.toml").read_text()
    (sites["south"] / "site.toml").write_text(text.replace(str(boxes("fruit-south")), str(data)))

    def join(content: RecordDict) -> RecordDict:
        description = json.loads((data / "dataset.json").read_text())
        first = description["training"][0]
        later = {kind: path.replace("_0", "_00") for kind, path in first.items()}
        for kind, path in first.items():
            shutil.copy(data / path, data / later[kind])
        description["training"].append(later)
        (data / "dataset.json").write_text(json.dumps(description))
        site._cached_site.cache_clear()  # at a real site each order is a process of its own
        return content

    run = new_run(settings, new_request(*sites, rounds=3))
    done = Coordinator(settings, run, LocalGrid(sites, Answering("south", join)), print).go()  # type: ignore[arg-type]
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    reasons = [one.reason for r in rounds for one in r.contributions if one.site == "south"]
    assert reasons == ["", "Failed:IncompatibleParts", "Failed:IncompatibleParts"]
    assert set(done.at_sites) == {"north"}
    (fault, *_) = (sites["south"] / "faults.log").read_text().splitlines()
    assert "data or plugin of fruit-south have changed" in json.loads(fault)["text"]


def test_a_shared_domain_that_means_something_else_is_left_out(
    settings, new_site, new_request
) -> None:
    """Its weights have the same shapes, and would be averaged without a word."""
    sites = {name: new_site(name, ("apple", "average")) for name in ("north", "south")}
    spec = sites["south"] / "plugins" / "apple" / "domain.toml"
    spec.write_text(spec.read_text().replace('name = "box"', 'name = "worm"'))
    run = new_run(settings, new_request(*sites))
    notes: list[str] = []
    Coordinator(settings, run, LocalGrid(sites), notes.append).go()
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    reasons = [(one.site, one.reason) for done in rounds for one in done.contributions]
    assert reasons == [("north", ""), ("south", "OtherSpec")] * 2
    assert (
        "south is left out, by OtherSpec: its apple has other classes than the one in use" in notes
    )
    assert not (sites["south"] / "state").exists()  # it has trained nothing


def test_who_corrects_what_a_shared_domain_means_takes_part_again(
    settings, new_site, new_request
) -> None:
    sites = {name: new_site(name, ("apple", "average")) for name in ("north", "south")}
    spec = sites["south"] / "plugins" / "apple" / "domain.toml"
    right = spec.read_text()
    spec.write_text(right.replace('name = "box"', 'name = "worm"'))
    run = new_run(settings, new_request(*sites, quorum=2, attempts=1, rounds=1))
    with pytest.raises(QuorumNotReached, match="south: OtherSpec"):
        Coordinator(settings, run, LocalGrid(sites), print).go()
    spec.write_text(right)
    site._cached_site.cache_clear()
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    assert [one.domain for one in done.versions] == ["apple"]


def test_a_site_that_changes_what_it_means_is_asked_before_it_trains_again(
    settings, new_site, new_request
) -> None:
    sites = {name: new_site(name, ("apple", "average")) for name in ("north", "south")}
    worm = _held(labels=[{"name": "worm", "values": [1]}])
    asked: list[str] = []
    faulty = Answering("south", worm)

    def app(message: Message, context) -> Message:
        if Path(context.node_config["site-dir"]).name == "south":
            asked.append(message.metadata.message_type)
        return faulty(message, context)

    run = new_run(settings, new_request(*sites, rounds=3))
    Coordinator(settings, run, LocalGrid(sites, app), print).go()  # type: ignore[arg-type]
    assert asked == ["query", "train", "query", "train", "train", "train.finish"]
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    reasons = [one.reason for r in rounds for one in r.contributions if one.site == "south"]
    assert reasons == ["OtherSpec", "", ""]


def test_sites_of_another_release_say_so(settings, new_site, new_request, monkeypatch) -> None:
    sites = {"north": new_site("north", "apple")}
    run = new_run(settings, new_request(*sites))
    monkeypatch.setattr(site, "version", lambda _: "9.9.9")
    with pytest.raises(QuorumNotReached, match="north: Failed:OtherRelease"):
        Coordinator(settings, run, LocalGrid(sites), print).go()
    (fault, *_) = (sites["north"] / "faults.log").read_text().splitlines()
    assert "this site has 9.9.9" in json.loads(fault)["text"]


@pytest.mark.parametrize("kind", ["train", "train.finish"])
def test_a_site_that_is_upgraded_in_the_middle_of_a_run_says_so(
    settings, new_site, new_request, monkeypatch, kind: str
) -> None:
    sites = {"north": new_site("north", "apple")}

    def app(message: Message, context) -> Message:
        if message.metadata.message_type == kind:
            monkeypatch.setattr(site, "version", lambda _: "9.9.9")
        return client_app.app(message, context)

    run = new_run(settings, new_request(*sites, rounds=1, attempts=1))
    coordinator = Coordinator(settings, run, LocalGrid(sites, app), print)  # type: ignore[arg-type]
    if kind == "train":
        with pytest.raises(QuorumNotReached, match="north: Failed:OtherRelease"):
            coordinator.go()
    else:
        assert coordinator.go().at_sites == {}


def test_a_plan_of_others_is_not_told(settings, new_site, new_request) -> None:
    sites = {"north": new_site("north", ("apple", "average")), "south": new_site("south", "plum")}
    told = []

    def app(message: Message, context) -> Message:
        if message.metadata.message_type == "train":
            order, _ = unpack(Order, message.content)
            told.append((Path(context.node_config["site-dir"]).name, [*order.plans]))
        return client_app.app(message, context)

    run = new_run(settings, new_request(*sites, rounds=1))
    Coordinator(settings, run, LocalGrid(sites, app), print).go()  # type: ignore[arg-type]
    assert sorted(told) == [("north", ["apple"]), ("south", [])]


def test_a_site_that_never_answers_is_left_out(settings, federate, new_site, new_request) -> None:
    alone = federate(names=("north",))
    sites = {name: new_site(name, f"fruit-{name}") for name in ("north", "south")}
    run = new_run(settings, new_request(*sites, round_minutes=0.1))
    Coordinator(settings, run, Silent(sites), print).go()
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    assert [o.backbone_digest for o in rounds] == [o.backbone_digest for o in alone]
    assert {(o.site, o.reason) for r in rounds for o in r.contributions} == {
        ("north", ""),
        ("south", "NoReply"),
    }


def test_an_answer_that_flower_cannot_decode_is_left_out(
    settings, federate, new_site, new_request
) -> None:
    class Undecodable(LocalGrid):
        def pull_messages(self, message_ids):
            (found,) = super().pull_messages(message_ids)
            if self._names[found.metadata.src_node_id] == "south":
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "what a site has put there")
            return [found]

    alone = federate(names=("north",))
    sites = {name: new_site(name, f"fruit-{name}") for name in ("north", "south")}
    run, notes = new_run(settings, new_request(*sites)), []
    Coordinator(settings, run, Undecodable(sites), notes.append).go()
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    assert [o.backbone_digest for o in rounds] == [o.backbone_digest for o in alone]
    assert {o.reason for r in rounds for o in r.contributions} == {"", "BadMessage"}
    assert "south's answer cannot be read: UnicodeDecodeError" in notes


def test_what_flower_does_not_send_and_a_superlink_that_is_busy_are_no_fault_of_a_site(
    settings, new_site, new_request
) -> None:
    class Busy(LocalGrid):
        asked = 0

        def pull_messages(self, message_ids):
            self.asked += 1
            if self.asked % 2:
                raise httpx.ReadTimeout("busy")
            return super().pull_messages(message_ids)

    class TooLarge(LocalGrid):
        def push_messages(self, messages):
            return []

    sites = {"north": new_site("north", "apple")}
    run = new_run(settings, new_request(*sites, rounds=1))
    with pytest.raises(QuorumNotReached, match="north: NoReply"):
        Coordinator(settings, run, TooLarge(sites), print).go()
    Coordinator(settings, run, Busy(sites), print).go()
    (done,) = Catalog.open(settings.database_url).federations.rounds(run)
    assert [one.reason for one in done.contributions] == [""]


def test_a_coordinator_has_no_say_in_weights_that_a_site_keeps(
    settings, new_site, new_request
) -> None:
    sites = {"north": new_site("north", "apple")}

    def meddling(message: Message, context) -> Message:
        if message.metadata.message_type != "query":
            kept = Site(sites["north"]).catalog.versions.list("apple")
            weights = WeightStore(Site(sites["north"]).settings.weights_dir)
            if kept:  # of the run before: the same names and shapes
                given = weights.get(kept[0].domain_digest)
                given = {name: np.zeros_like(one.numpy()) for name, one in given.items()}
                message.content["weights/apple"] = ArrayRecord(
                    {name: Array(one) for name, one in given.items()}
                )
        return client_app.app(message, context)

    for _ in range(2):
        run = new_run(settings, new_request(*sites))
        Coordinator(settings, run, LocalGrid(sites, meddling), print).go()  # type: ignore[arg-type]
    first, second = Site(sites["north"]).catalog.versions.list("apple")
    assert first.domain_digest == second.domain_digest


def test_a_round_is_not_asked_for_where_a_later_one_is_confirmed() -> None:
    order = {
        "run": "20260131-120000-1a2b", "release": "0.1.0", "round": 2, "confirmed": 1, "cycles": 1,
        "recipe": Recipe.load("default").model_dump(mode="json"), "architecture": {}, "seed": 0,
        "fold": 0, "proximal": 0, "plans": {}, "seconds": 9,
    }  # fmt: skip
    for changes in ({}, {"confirmed": 2}, {"seconds": float("inf")}, {"proximal": float("nan")}):
        content = RecordDict({"order": ConfigRecord({"json": json.dumps(order | changes)})})
        if not changes:
            assert unpack(Order, content)[0].round == 2
            continue
        with pytest.raises(Refused, match="BadMessage"):
            unpack(Order, content)


def test_a_shared_domain_that_nobody_has_trained_is_not_published(
    settings, new_site, new_request
) -> None:
    sites = {"north": new_site("north", ("apple", "average")), "south": new_site("south", "plum")}
    app = Answering("north", *[FAULTS["NaN"][0]] * 2)
    run, notes = new_run(settings, new_request(*sites)), []
    done = Coordinator(settings, run, LocalGrid(sites, app), notes.append).go()
    assert done.versions == ()
    assert "apple is not published: no round with it was taken" in notes


def test_a_site_does_not_take_over_the_name_of_a_domain_of_the_coordinator(
    settings, new_site, new_request
) -> None:
    sites = {"north": new_site("north", ("apple", "average")), "south": new_site("south", "plum")}
    spec = Site(sites["north"]).describe(
        Ask(run="20260131-120000-1a2b", release=version(PRODUCT), fold=0, batch_voxels=4096)
    ).domains["apple"].spec  # fmt: skip
    catalog, other = Catalog.open(settings.database_url), spec | {"modality": "CT"}
    catalog.domains.add(other, "apple", "a" * 64, "folder")
    run, notes = new_run(settings, new_request(*sites)), []
    done = Coordinator(settings, run, LocalGrid(sites), notes.append).go()
    assert done.versions == ()
    reasons = {
        (one.site, one.reason) for r in catalog.federations.rounds(run) for one in r.contributions
    }
    assert reasons == {("north", "OtherSpec"), ("south", "")}
    assert any("its apple has other modality than the one in use" in note for note in notes)


def test_what_goes_wrong_at_a_site_stays_there(settings, new_site, new_request) -> None:
    """The class of an error leaves; its text, with paths and names of cases, does not."""
    sites = {name: new_site(name, f"fruit-{name}") for name in ("north", "south")}
    text = (sites["south"] / "site.toml").read_text()
    (sites["south"] / "site.toml").write_text(text.replace('fruit-south"', 'gone/of Mr Doe"'))
    leaving: list[bytes] = []

    def app(message: Message, context) -> Message:
        reply = client_app.app(message, context)
        leaving.append(str(reply.content).encode())
        return reply

    run = new_run(settings, new_request(*sites))
    notes: list[str] = []
    grid = LocalGrid(sites, app)  # type: ignore[arg-type]
    Coordinator(settings, run, grid, notes.append).go()
    assert any("south cannot say what it holds: Failed:MissingFile" in note for note in notes)
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    assert {o.reason for r in rounds for o in r.contributions} == {"", "Failed:MissingFile"}
    audit = [json.loads(line) for line in (sites["south"] / "audit.jsonl").read_text().splitlines()]
    assert {one["word"] for one in audit if one["what"] == "failed"} == {"MissingFile"}
    assert not any(b"Doe" in one for one in leaving)
    (fault, *_) = (sites["south"] / "faults.log").read_text().splitlines()
    assert "Doe" in json.loads(fault)["text"]


def test_an_exception_of_flower_is_no_more_than_a_word(settings, new_site, new_request) -> None:
    app = ClientApp()

    @app.query()
    def broken(message: Message, context) -> Message:
        raise RuntimeError("/home/doe/secret")

    sites = {"north": new_site("north", "apple")}
    run = new_run(settings, new_request(*sites))
    notes: list[str] = []
    with pytest.raises(QuorumNotReached):
        Coordinator(settings, run, LocalGrid(sites, app), notes.append).go()
    assert notes == ["north cannot say what it holds: Unreachable"]


def test_who_presses_ctrl_c_wants_no_next_round(
    settings, new_site, new_request, monkeypatch
) -> None:
    sites = {"north": new_site("north", "apple")}

    run = new_run(settings, new_request(*sites, rounds=3))
    take_step = Trainer._one_step

    def step(self, *arguments) -> None:
        take_step(self, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_one_step", step)
    with pytest.raises(Interrupted, match="SIGINT") as stopped:
        Coordinator(settings, run, LocalGrid(sites), print).go()
    assert f"--resume {run}" in stopped.value.hint
    assert Catalog.open(settings.database_url).runs.get(run).status == "interrupted"
    monkeypatch.setattr(Trainer, "_one_step", take_step)
    Coordinator(settings, run, LocalGrid(sites), print).go()


@pytest.mark.parametrize("run", ["../../../etc", "20260101-000000-1a2b/../..", "", "x" * 500])
def test_a_coordinator_cannot_name_folders_of_a_site(run: str) -> None:
    ask = {"run": run, "fold": 0, "batch_voxels": 4096, "release": "0.1.0"}
    with pytest.raises(Refused, match="BadMessage"):
        unpack(Ask, RecordDict({"order": ConfigRecord({"json": json.dumps(ask)})}))


BORDER = {
    "axis": "y", "classes": ["fruit", "stone"], "weights": [0.0] * 60, "offset": 0.5, "error": 0.1
}  # fmt: skip
PLACE = {"centre_zyx": [0.5] * 3, "spread_mm": 9.0, "extent_zyx_mm": [90.0] * 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 10**9},
        {"patch_zyx": [10**4] * 3},
        {"patch_zyx": [0, 8, 8]},
        {"strides_zyx": [[7, 7, 7]] * 5},
        {"spacing_zyx_mm": [0.0, 1.0, 1.0]},
        {"spacing_zyx_mm": [1e6, 1.0, 1.0]},
        {"statistics": [{"low": 0, "high": 1, "mean": 0.5, "std": 1}] * 3},
        {"keep_largest": ["fruit"]},
        {"places": {"fruit": PLACE}},
        {"border": BORDER},
    ],
)
def test_a_plan_that_no_other_site_could_work_by_is_refused(
    settings, new_site, new_request, changes: dict[str, object]
) -> None:
    """It would be that of every site that shares the domain."""
    sites = {"north": new_site("north", ("apple", "average"))}
    run = new_run(settings, new_request(*sites))

    def app(message: Message, context) -> Message:
        reply = client_app.app(message, context)
        return Message(_held("plan", **changes)(reply.content), reply_to=message)

    with pytest.raises(QuorumNotReached, match="north: BadSpec"):
        Coordinator(settings, run, LocalGrid(sites, app), print).go()  # type: ignore[arg-type]
