from __future__ import annotations

import json

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.local import LocalGrid
from u2net_platform.federation.request import new_run
from u2net_platform.federation.site import Site
from u2net_platform.training.recipe import Recipe


def test_two_sites_with_different_domains_make_one_backbone(
    settings, new_site, new_request
) -> None:
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
    audit = [json.loads(line) for line in (sites["north"] / "audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in audit] == ["described", "sent", "sent", "finished"]
    assert set(audit[1]["updates"]) == {"backbone"}


def test_domains_of_a_site_take_turns_whatever_the_recipe_says(new_request) -> None:
    request = new_request("north", recipe=Recipe.load("default", ["temperature=2"]))
    assert request.whole_recipe.temperature is None
