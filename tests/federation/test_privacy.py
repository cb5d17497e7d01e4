from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from scipy.stats import kstest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import BudgetSpent, Diverged, InvalidSite, QuorumNotReached
from u2net_platform.federation.aggregation import norm_of
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.local import LocalGrid
from u2net_platform.federation.privacy import Privacy, secret_normal
from u2net_platform.federation.request import new_run
from u2net_platform.federation.site import Site
from u2net_platform.federation.site_config import PrivacyRules
from u2net_platform.training.trainer import Trainer

UPDATES = {"backbone": {"a": torch.full((300,), 2.0)}, "heart": {"b": torch.full((100,), -1.0)}}


def norm(updates) -> float:
    return norm_of({f"{o}/{n}": t for o, u in updates.items() for n, t in u.items()})


def test_by_default_nothing_changes(tmp_path: Path) -> None:
    privacy = Privacy(PrivacyRules(), tmp_path / "spent")
    kept = privacy.protect(UPDATES)
    assert all(torch.equal(kept[o][n], t) for o, u in UPDATES.items() for n, t in u.items())
    assert privacy.epsilon() is None
    assert not (tmp_path / "spent").exists()


def test_all_that_leaves_is_clipped_together(tmp_path: Path) -> None:
    kept = Privacy(PrivacyRules(clip=1.0), tmp_path / "spent").protect(UPDATES)
    assert norm(kept) == pytest.approx(1.0, abs=1e-5)
    assert (kept["backbone"]["a"][0] / kept["heart"]["b"][0]).item() == pytest.approx(-2.0)
    small = {"backbone": {"a": torch.full((4,), 0.1)}}
    unclipped = Privacy(PrivacyRules(clip=1.0), tmp_path / "spent").protect(small)
    assert torch.equal(unclipped["backbone"]["a"], small["backbone"]["a"])


@pytest.mark.parametrize("rules", [{}, {"clip": 1.0}, {"clip": 1.0, "noise": 2.0}])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_not_finite_leaves_in_no_case(tmp_path: Path, rules, value: str) -> None:
    """Its norm bounds nothing: all that is beside it would leave as it is."""
    privacy = Privacy(PrivacyRules(**rules), tmp_path / "spent")
    odd = {"backbone": {"a": torch.tensor([1000.0]), "b": torch.tensor([float(value)])}}
    with pytest.raises(Diverged):
        privacy.protect(odd)
    assert not (tmp_path / "spent").exists(), "nothing was spent"


def test_noise_has_the_declared_size_and_is_another_each_time(tmp_path: Path) -> None:
    privacy = Privacy(PrivacyRules(clip=0.5, noise=2.0), tmp_path / "spent")
    zero = {"backbone": {"a": torch.zeros(40_000)}}
    first, second = (privacy.protect(zero)["backbone"]["a"] for _ in range(2))
    assert first.std().item() == pytest.approx(1.0, rel=0.03)
    assert first.mean().item() == pytest.approx(0.0, abs=0.03)
    assert not torch.equal(first, second)


def test_the_noise_is_normal_and_no_seed_decides_it() -> None:
    torch.manual_seed(0)
    first = secret_normal(torch.Size([50_000]))
    torch.manual_seed(0)
    assert not torch.equal(secret_normal(torch.Size([50_000])), first)
    assert kstest(first.numpy(), "norm").pvalue > 1e-4
    assert secret_normal(torch.Size([2, 3])).shape == (2, 3)


def spend(file: Path, times: int) -> None:
    privacy = Privacy(PrivacyRules(clip=1.0, noise=4.0), file)
    for _ in range(times):
        privacy.protect({"backbone": {"a": torch.zeros(1)}})


def test_what_two_runs_spend_at_once_is_counted_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    file = tmp_path / "privacy.json"
    runs = [context.Process(target=spend, args=(file, 15)) for _ in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert [one.exitcode for one in runs] == [0, 0]
    assert json.loads(file.read_text()) == {"4.0": 30}


def test_what_is_spent_adds_up_over_runs_as_opacus_counts_it(tmp_path: Path) -> None:
    from opacus.accountants import RDPAccountant

    rules = PrivacyRules(clip=1.0, noise=4.0)
    for _ in range(3):  # each a process of its own
        Privacy(rules, tmp_path / "spent").protect(UPDATES)
    known = RDPAccountant()
    known.history = [(4.0, 1.0, 3)]
    spent = Privacy(rules, tmp_path / "spent").epsilon()
    assert spent == pytest.approx(known.get_epsilon(1e-5))
    # The classical bound for one Gaussian release is no smaller than what is counted for it.
    assert (
        Privacy(rules, tmp_path / "none").epsilon(1) < math.sqrt(2 * math.log(1.25e5)) / 4.0 * 1.5
    )


def test_nothing_leaves_once_the_budget_is_spent(tmp_path: Path) -> None:
    limit = Privacy(PrivacyRules(clip=1.0, noise=4.0), tmp_path / "none").epsilon(2)
    assert limit is not None
    rules = PrivacyRules(clip=1.0, noise=4.0, largest_epsilon=limit * 1.01)
    privacy = Privacy(rules, tmp_path / "spent")
    privacy.protect(UPDATES)
    privacy.protect(UPDATES)
    with pytest.raises(BudgetSpent, match="epsilon"):
        privacy.protect(UPDATES)
    assert json.loads((tmp_path / "spent").read_text()) == {"4.0": 2}


def test_a_site_without_budget_does_not_train_for_nothing(
    settings, new_site, new_request, monkeypatch
) -> None:
    more = "[privacy]\nclip = 0.5\nnoise = 4.0\nlargest_epsilon = 0.01\n"
    sites = {"north": new_site("north", "apple", more=more)}
    run = new_run(settings, new_request(*sites, attempts=1))
    monkeypatch.setattr(Trainer, "run", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(QuorumNotReached, match="Failed:BudgetSpent"):
        Coordinator(settings, run, LocalGrid(sites), print).go()


@pytest.mark.parametrize(
    "rules", [PrivacyRules(noise=1.0), PrivacyRules(clip=1.0, largest_epsilon=3.0)]
)
def test_rules_that_promise_what_they_cannot_keep_are_refused(rules, tmp_path: Path) -> None:
    with pytest.raises(InvalidSite):
        Privacy(rules, tmp_path / "spent")


def test_a_noisy_site_reports_what_it_has_spent(settings, new_site, new_request) -> None:
    more = "[privacy]\nclip = 0.5\nnoise = 0.01\n"
    sites = {"north": new_site("north", "apple", more=more)}
    run = new_run(settings, new_request(*sites))
    Coordinator(settings, run, LocalGrid(sites), print).go()
    sent = [
        line
        for line in map(json.loads, (sites["north"] / "audit.jsonl").read_text().splitlines())
        if line["what"] == "sent"
    ]
    epsilons = [line["numbers"]["epsilon"] for line in sent]
    assert 0 < epsilons[0] < epsilons[1]
    rounds = Catalog.open(settings.database_url).federations.rounds(run)
    backbone = WeightStore(Site(sites["north"]).settings.weights_dir).get(rounds[1].backbone_digest)
    # Clipped to 0.5, then noise of 0.005 in each weight.
    noise = 0.005 * math.sqrt(sum(tensor.numel() for tensor in backbone.values()))
    assert noise > 1
    assert rounds[0].contributions[0].norm == pytest.approx(math.hypot(0.5, noise), rel=0.03)
