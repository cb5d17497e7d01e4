from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from typer.testing import CliRunner

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.cli.app import app
from u2net_platform.federation import client_app, server_app
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.local import LocalGrid
from u2net_platform.federation.request import new_run
from u2net_platform.federation.site import Site
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Trainer


def test_two_sites_with_different_domains_make_one_backbone(
    settings, new_site, new_request, monkeypatch
) -> None:
    validate, validated = Trainer.validate, []
    monkeypatch.setattr(
        Trainer, "validate", lambda self: validated.append(self.cycle) or validate(self)
    )
    sites = {"north": new_site("north", "apple", "pear"), "south": new_site("south", "plum")}
    run = new_run(settings, new_request(*sites))
    done = Coordinator(settings, run, LocalGrid(sites), print).go()
    assert done.run.status == "completed"
    assert done.run.domains == ("apple", "pear", "plum")
    assert done.versions == ()
    assert set(done.at_sites["north"].versions) == {"apple", "pear"}
    catalog = Catalog.open(settings.database_url)
    rounds = catalog.federations.rounds(run)
    assert [one.status for one in rounds] == ["completed"] * 2
    assert all(one.accepted for two in rounds for one in two.contributions)
    backbones = {
        Site(folder).catalog.find(domain).backbone_digest
        for folder, domain in ((sites["north"], "apple"), (sites["south"], "plum"))
    }
    assert backbones == {rounds[-1].backbone_digest}
    assert validated == [4, 4], "each site at the end, and not within the time of a round"
    audit = [json.loads(line) for line in (sites["north"] / "audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in audit] == ["described", "sent", "sent", "finished"]
    assert set(audit[1]["updates"]) == {"backbone"}


def test_domains_of_a_site_take_turns_whatever_the_recipe_says(new_request) -> None:
    request = new_request("north", recipe=Recipe.load("default", ["temperature=2"]))
    assert request.whole_recipe.temperature is None


def test_sites_that_have_published_nothing_are_named_until_they_have(
    settings, new_site, new_request
) -> None:
    """What Flower runs is another process than the one that watches: all goes by the folder."""
    sites = {"north": new_site("north", "apple"), "south": new_site("south", "plum")}
    run = new_run(settings, new_request(*sites, rounds=1))

    def go_on(folders: dict[str, Path], site_app: Callable[..., Message] = client_app.app) -> None:
        context = Context(1, 0, {}, RecordDict(), {"run": run})
        server_app.main(LocalGrid(folders, site_app), context)  # type: ignore[arg-type]

    def failing(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train.finish" and "south" in str(context.node_config):
            raise OSError("the disk has gone")
        return client_app.app(message, context)

    def status() -> tuple[dict, str]:
        done = CliRunner().invoke(app, ["federation", "status", "--json"])
        return json.loads(done.stdout)["data"], done.stderr

    go_on(sites, failing)
    found, told = status()
    assert (found["status"], found["unpublished"]) == ("completed", ["south"])
    assert (told.split(":")[0], f"u2net federation resume {run}" in told) == ("south", True)
    assert any(note.startswith("south has published nothing") for note in found["notes"])
    go_on({"south": sites["south"]})
    found, told = status()
    assert (found["unpublished"], told) == ([], "")
    assert {site: one["versions"] for site, one in found["at_sites"].items()} == {
        "north": {"apple": "apple:1"}, "south": {"plum": "plum:1"},
    }  # fmt: skip
