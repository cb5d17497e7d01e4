from __future__ import annotations

import json
import shutil

import pytest
import SimpleITK
import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.errors import DiskFull, NothingToResume, QuorumNotReached, RoundTooLong
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.local import LocalGrid
from u2net_platform.federation.request import new_run
from u2net_platform.federation.site import Site
from u2net_platform.federation.state import State
from u2net_platform.federation.status import read_status
from u2net_platform.files import exclusive
from u2net_platform.model.partition import tensors_digest
from u2net_platform.tracking.recorder import NullRecorder
from u2net_platform.training.trainer import Trainer


class Stops(LocalGrid):
    """The coordinator is killed when it has asked for the rounds that are left."""

    left = 10**6

    def push_messages(self, messages):
        messages = list(messages)
        if messages and messages[0].metadata.message_type == "train":
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return super().push_messages(messages)


def test_a_run_stopped_after_any_round_ends_with_the_same_backbone(
    settings, new_site, new_request
) -> None:
    digests = set()
    for stop_after in (None, 0, 1, 2):
        sites = {"north": new_site("north", "apple"), "south": new_site("south", "plum")}
        request = new_request(*sites, rounds=3, rules={"server_momentum": 0.9})
        run = new_run(settings, request)
        if stop_after is not None:
            grid = Stops(sites)
            grid.left = stop_after
            with pytest.raises(KeyboardInterrupt):
                Coordinator(settings, run, grid, print).go()
            catalog = Catalog.open(settings.database_url)
            assert catalog.runs.get(run).status == "interrupted"
            assert len(catalog.federations.rounds(run)) == stop_after
        Coordinator(settings, run, LocalGrid(sites), print).go()
        rounds = Catalog.open(settings.database_url).federations.rounds(run)
        assert [one.number for one in rounds] == [1, 2, 3]
        digests.add(rounds[-1].backbone_digest)
    assert len(digests) == 1


def test_how_a_run_ended_stands_also_where_it_cannot_be_told(
    settings, new_site, new_request, monkeypatch
) -> None:
    class Full(NullRecorder):
        def finish(self, status: str) -> None:
            raise DiskFull(f"No room for {status}", "Free some.")

    monkeypatch.setattr(Coordinator, "_recorder", lambda _: Full())
    sites, notes = {"north": new_site("north", "apple")}, []
    run = new_run(settings, new_request(*sites, rounds=1))
    grid = Stops(sites)
    grid.left = 0
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, notes.append).go()
    assert Coordinator(settings, run, LocalGrid(sites), notes.append).go().run.status == "completed"
    assert notes == ["No room for interrupted", "No room for completed"]


def test_rows_that_a_kill_has_kept_back_come_with_the_resume(
    settings, new_site, new_request, monkeypatch
) -> None:
    """The file of a round is there before its rows."""
    sites = {"north": new_site("north", "apple")}
    run = new_run(settings, new_request(*sites))
    coordinator = Coordinator(settings, run, LocalGrid(sites), print)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(
            coordinator._catalog.federations,
            "end_round",
            lambda _: (_ for _ in ()).throw(SystemExit),
        )
        coordinator.go()
    catalog = Catalog.open(settings.database_url)
    assert catalog.federations.rounds(run) == []
    Coordinator(settings, run, LocalGrid(sites), print).go()
    assert [one.number for one in catalog.federations.rounds(run)] == [1, 2]


def test_a_site_that_was_away_joins_again(settings, new_site, new_request) -> None:
    sites = {"north": new_site("north", "apple"), "south": new_site("south", "plum")}

    run = new_run(settings, new_request(*sites, rounds=3))
    federations = Catalog.open(settings.database_url).federations

    class Away(LocalGrid):
        def get_nodes(self):
            away = "south" if len(federations.rounds(run)) == 1 else None
            return [one for one in super().get_nodes() if one.name != away]

    Coordinator(settings, run, Away(sites), print).go()
    rounds = federations.rounds(run)
    reasons = [[one.reason for one in done.contributions] for done in rounds]
    assert reasons == [["", ""], ["", "Absent"], ["", ""]]


def test_a_state_is_read_back_as_it_was(tmp_path) -> None:
    state = State(
        weights={"backbone": {"a.weight": torch.randn(3)}, "heart": {"stem.weight": torch.ones(2)}},
        momentum={"backbone": {"a.weight": torch.randn(3, dtype=torch.float64)}},
        round=7,
        confirmed={"north": 7, "south": 5},
    )
    state.save(tmp_path / "state")
    found = State.load(tmp_path / "state")
    assert (found.round, found.confirmed) == (7, {"north": 7, "south": 5})
    for kind in ("weights", "momentum"):
        for owner, tensors in getattr(state, kind).items():
            for name, tensor in tensors.items():
                assert torch.equal(getattr(found, kind)[owner][name], tensor)


def test_what_a_site_keeps_is_missed(settings, new_site, new_request) -> None:
    sites = {"north": new_site("north", "apple")}
    run = new_run(settings, new_request(*sites, rounds=2, attempts=1))
    grid = Stops(sites)
    grid.left = 1
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, print).go()
    shutil.rmtree(sites["north"] / "state")
    with pytest.raises(QuorumNotReached, match="Failed:StateLost"):
        Coordinator(settings, run, LocalGrid(sites), print).go()


def test_an_unknown_run_is_refused(settings) -> None:
    with pytest.raises(NothingToResume):
        Coordinator(settings, "20260101-000000-ffff", LocalGrid({}), print)


def test_a_new_domain_learns_on_the_frozen_backbone_before_it_contributes(
    settings, new_site, new_request
) -> None:
    sites = {"north": new_site("north", "apple"), "south": new_site("south", "plum")}
    run = new_run(settings, new_request(*sites, rounds=3))
    grid = Stops(sites)
    grid.left = 1
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, print).go()
    new_site("north", "apple", "kiwi")
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    assert set(done.at_sites["north"].versions) == {"apple", "kiwi"}
    audit = (sites["north"] / "audit.jsonl").read_text()
    assert audit.count('"what": "adapted"') == 1
    assert {one.name for one in Site(sites["north"]).catalog.domains.list()} == {"apple", "kiwi"}


@pytest.mark.parametrize(("kiwi", "times"), [("kiwi", 1), (("kiwi", "average"), 2)])
def test_what_a_new_domain_has_adapted_is_kept_when_the_time_of_its_round_runs_out(
    settings, new_site, new_request, monkeypatch, kiwi: str | tuple[str, str], times: int
) -> None:
    """Adapting and a round take twice as long as a round: it would never be done. But what others
    train meanwhile is adapted anew: what it was before would be sent as if it were a change."""
    others = ("plum",) if times == 1 else ("plum", kiwi)
    sites = {"north": new_site("north", "apple"), "south": new_site("south", *others)}
    run = new_run(settings, new_request(*sites, rounds=5))
    grid = Stops(sites)
    grid.left = 1
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, print).go()
    new_site("north", "apple", kiwi)
    train, late = Trainer.run, iter([True])

    def watched(self, *arguments, **options) -> None:
        both = {"apple", "kiwi"} == {*self.domains}
        if both and next(late, False):
            raise RoundTooLong("The time is up", "Give it more.")
        train(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "run", watched)
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    assert set(done.at_sites["north"].versions) == {"apple", "kiwi"}
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    reasons = [one.reason for r in rounds for one in r.contributions if one.site == "north"]
    assert sorted(reasons) == ["", "", "", "", "Failed:RoundTooLong"]
    assert reasons[-2:] == ["", ""]
    audit = (sites["north"] / "audit.jsonl").read_text()
    assert audit.count('"what": "adapted"') == times
    assert not list((sites["north"] / "state" / run).glob("adapt*"))


def test_a_shared_domain_is_published_by_the_coordinator(settings, new_site, new_request) -> None:
    sites = {
        "north": new_site("north", ("apple", "average"), "pear"),
        "south": new_site("south", ("apple", "average")),
        "west": new_site("west", "plum"),
    }
    run = new_run(settings, new_request(*sites, quorum=3))
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    (version,) = done.versions
    assert version.domain == "apple"
    assert version.metrics["federation"]["sites"] == {"north": 2, "south": 2, "west": 2}
    at_north = Site(sites["north"]).catalog.find("apple")
    assert at_north.domain_digest == version.domain_digest
    assert at_north.backbone_digest == version.backbone_digest
    catalog = Catalog.open(settings.database_url)
    assert [one.version for one in catalog.versions.that_saw_site("west")] == ["apple:1"]


def test_a_shared_domain_that_joins_keeps_what_it_has_adapted(
    settings, new_site, new_request, monkeypatch
) -> None:
    sites = {"north": new_site("north", "apple"), "south": new_site("south", "plum")}
    run = new_run(settings, new_request(*sites, rounds=4))
    grid = Stops(sites)
    grid.left = 1
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, print).go()
    new_site("north", "apple", ("kiwi", "average"))
    ends: list[tuple[str, str]] = []
    train = Trainer.run

    def watched(self, *arguments, **options) -> None:
        has = "kiwi" in self.network.domains
        before = tensors_digest(self.network.owner_state("kiwi")) if has else ""
        train(self, *arguments, **options)
        if has:
            ends.append((before, tensors_digest(self.network.owner_state("kiwi"))))

    monkeypatch.setattr(Trainer, "run", watched)
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    assert [one.domain for one in done.versions] == ["kiwi"]
    adapting, training = ends[:2]
    assert adapting[0] != adapting[1] == training[0] != training[1]


@pytest.mark.parametrize("weights", ["local", "average"])
def test_a_site_may_share_a_domain_no_longer_or_from_now_on(
    settings, new_site, new_request, weights: str
) -> None:
    other = {"local": "average", "average": "local"}[weights]
    sites = {"north": new_site("north", ("apple", other)), "south": new_site("south", "plum")}
    run = new_run(settings, new_request(*sites, rounds=4))
    grid = Stops(sites)
    grid.left = 1
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, print).go()
    new_site("north", ("apple", weights))
    Coordinator(settings, run, LocalGrid(sites), print).go()
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    assert [one.accepted for one in rounds[-1].contributions] == [True, True]


@pytest.mark.parametrize("weights", ["local", "average"])
def test_a_site_that_shares_from_now_on_or_no_longer_may_have_a_plan_of_its_own(
    settings, new_site, new_request, boxes, tmp_path, weights: str
) -> None:
    """Its slices are five times as thick as those of the site whose plan is everybody's."""
    other = {"local": "average", "average": "local"}[weights]
    sites = {
        "north": new_site("north", ("apple", "average")),
        "south": new_site("south", ("apple", other)),
    }
    thick = tmp_path / "thick"
    shutil.copytree(boxes("apple"), thick)
    description = json.loads((thick / "dataset.json").read_text())
    description["training"].pop()  # the plan is that of the site with most cases
    (thick / "dataset.json").write_text(json.dumps(description))
    for file in thick.glob("*Tr/*.nii.gz"):
        image = SimpleITK.ReadImage(str(file))
        image.SetSpacing((1.0, 1.0, 10.0))
        SimpleITK.WriteImage(image, str(file))

    def hold(how: str) -> None:
        text = (new_site("south", ("apple", how)) / "site.toml").read_text()
        text = text.replace(str(boxes("apple")), str(thick))
        (sites["south"] / "site.toml").write_text(text)

    hold(other)
    run = new_run(settings, new_request(*sites, rounds=5, cycles=1))
    grid = Stops(sites)
    grid.left = 1
    with pytest.raises(KeyboardInterrupt):
        Coordinator(settings, run, grid, print).go()
    hold(weights)
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    found = [[(one.site, one.reason) for one in each.contributions] for each in rounds]
    assert found[-1] == [("north", ""), ("south", "")], found
    assert done.run.status == "completed"
    assert Site(sites["south"]).catalog.versions.list("apple") or weights == "average"


def test_a_run_whose_coordinator_is_gone_does_not_go_on_for_ever(
    settings, new_site, new_request
) -> None:
    sites = {"north": new_site("north", "apple")}
    run = new_run(settings, new_request(*sites))
    Coordinator(settings, run, LocalGrid(sites), print).go()
    Catalog.open(settings.database_url).runs.update(run, "running", 1)  # as a kill leaves it
    assert read_status(settings, run).status == "interrupted"
    with exclusive(settings.runs_dir / run / "lock"):
        assert read_status(settings, run).status == "running"
