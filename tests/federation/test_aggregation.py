from __future__ import annotations

from itertools import permutations

import pytest
import torch

from u2net_platform.federation.aggregation import (
    Contribution,
    Refused,
    apply_update,
    check,
    mean_update,
    own_rate,
    weight_of,
)
from u2net_platform.federation.request import Rules
from u2net_platform.model.partition import tensors_digest

HELD = {"backbone": {"w": torch.tensor([3.0, 4.0])}}


def sent(site: str, *values: float, examples: int = 1, steps: int = 1, owner: str = "backbone"):
    return Contribution(site, {owner: {"w": torch.tensor(values)}}, examples, steps)


def test_the_mean_is_weighted_by_declared_counts() -> None:
    sites = [sent("a", 1.0, 0.0, examples=1), sent("b", 0.0, 8.0, examples=3)]
    by_examples = mean_update("backbone", sites, Rules(weigh_by="examples"))
    assert by_examples["w"].tolist() == [0.25, 6.0]
    assert mean_update("backbone", sites, Rules(weigh_by="equal"))["w"].tolist() == [0.5, 4.0]
    assert mean_update("backbone", sites, Rules(weigh_by="steps"))["w"].tolist() == [0.5, 4.0]


def test_a_site_counts_with_no_more_than_the_cap() -> None:
    large = sent("a", 1.0, 1.0, examples=900)
    assert weight_of(large, "backbone", Rules(weigh_by="examples", cap=100)) == 100
    both = [large, sent("b", 5.0, 5.0, examples=100)]
    assert mean_update("backbone", both, Rules(weigh_by="examples", cap=100))["w"].tolist() == [
        3.0,
        3.0,
    ]


def test_a_domain_is_averaged_over_the_sites_that_hold_it() -> None:
    both = Contribution(
        "a",
        {"backbone": {"w": torch.ones(1)}, "heart": {"w": torch.tensor([6.0])}},
        examples=3,
        steps=1,
        by_domain={"heart": 3},
    )
    lacks = sent("b", 5.0, examples=1)
    rules = Rules(weigh_by="examples")
    assert mean_update("heart", [both, lacks], rules)["w"].tolist() == [6.0]
    assert mean_update("backbone", [both, lacks], rules)["w"].tolist() == [2.0]
    assert mean_update("spleen", [both, lacks], rules) is None


@pytest.mark.parametrize(
    ("weigh_by", "cap", "mean"), [("examples", 1000, 0.75), ("examples", 2, 0.5), ("steps", 9, 0.5)]
)
def test_a_domain_counts_with_what_a_site_has_of_it(weigh_by: str, cap: int, mean: float) -> None:
    """Whatever else the site holds: the second has 500 cases of another domain, and its steps."""
    sites = [
        Contribution("a", {"heart": {"w": torch.tensor([1.0])}}, 6, 10, {"heart": 6}),
        Contribution(
            "b", {"heart": {"w": torch.tensor([0.0])}}, 502, 20, {"heart": 2, "liver": 500}
        ),
    ]
    update = mean_update("heart", sites, Rules(weigh_by=weigh_by, cap=cap))
    assert update["w"].tolist() == [mean]


def test_any_order_of_replies_gives_the_same_bytes() -> None:
    generator = torch.Generator().manual_seed(1)
    replies = [
        Contribution(
            f"site-{k}",
            {"backbone": {"w": torch.randn(997, generator=generator) * 10.0 ** (k - 2)}},
            examples=k + 1,
            steps=1,
        )
        for k in range(5)
    ]
    weights = {"w": torch.randn(997, generator=generator)}
    digests = set()
    for order in permutations(replies):
        update = mean_update("backbone", order, Rules(weigh_by="examples"))
        moved, _ = apply_update(weights, update, None, 0.0)
        digests.add(tensors_digest(moved))
    assert len(digests) == 1


def test_server_momentum_adds_up_by_hand() -> None:
    weights, update = {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0], dtype=torch.float64)}
    first, momentum = apply_update(weights, update, None, 0.5)
    assert first["w"].tolist() == [3.0]
    second, momentum = apply_update(first, update, momentum, 0.5)
    assert second["w"].tolist() == [6.0]  # 3 + (0.5 * 2 + 2)
    assert momentum["w"].tolist() == [3.0]
    assert second["w"].dtype == torch.float32


def test_server_rate_lengthens_the_step_and_not_the_momentum() -> None:
    weights, update = {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0], dtype=torch.float64)}
    moved, momentum = apply_update(weights, update, None, 0.5, rate=3.0)
    assert moved["w"].tolist() == [7.0]  # 1 + 3 * 2
    assert momentum["w"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("domains", "rate"),
    [
        ([{"heart"}, {"heart"}], 1.0),
        ([{"heart"}, {"liver"}], 2.0),
        ([{"heart", "liver"}, {"liver", "spleen"}, {"spleen", "kidney"}], 2.0),
        ([{"a"}, {"b"}, {"c"}, {"d"}], 3.0),
        ([{"heart", "liver"}], 1.0),
    ],
)
def test_the_servers_rate_is_how_many_sites_worth_of_domains_differ(domains, rate) -> None:
    assert own_rate(domains) == rate


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (sent("a", 0.1, 0.1, owner="heart"), "WrongKeys"),
        (Contribution("a", {}, 1, 1), "WrongKeys"),
        (Contribution("a", {"backbone": {"v": torch.ones(2)}}, 1, 1), "WrongKeys"),
        (sent("a", 0.1), "WrongShape"),
        (sent("a", 0.1, 0.1, 0.1), "WrongShape"),
        (Contribution("a", {"backbone": {"w": torch.ones(1, 2)}}, 1, 1), "WrongShape"),
        (Contribution("a", {"backbone": {"w": torch.ones(2).double()}}, 1, 1), "WrongType"),
        (Contribution("a", {"backbone": {"w": torch.ones(2).long()}}, 1, 1), "WrongType"),
        (sent("a", float("nan"), 0.1), "NotFinite"),
        (sent("a", float("inf"), 0.1), "NotFinite"),
        (sent("a", 8.0, 6.1), "TooLarge"),
        (sent("a", 3e38, 3e38), "TooLarge"),
        (sent("a", 0.1, 0.1, examples=0), "WrongWeight"),
        (sent("a", 0.1, 0.1, examples=-5), "WrongWeight"),
        (sent("a", 0.1, 0.1, examples=10**9), "WrongWeight"),
        (sent("a", 0.1, 0.1, steps=0), "WrongWeight"),
    ],
)
def test_each_fault_is_refused_by_name(reply: Contribution, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        check(reply, HELD, Rules())
    assert refused.value.reason == reason


def test_what_is_sound_is_taken() -> None:
    check(sent("a", 8.0, 6.0), HELD, Rules())  # as large as is allowed: twice the norm of (3, 4)


@pytest.mark.parametrize(
    ("by_domain", "reason"), [({}, "WrongKeys"), ({"heart": 0}, "WrongWeight")]
)
def test_a_domain_counts_with_cases_that_a_site_says_it_has(
    by_domain: dict[str, int], reason: str
) -> None:
    held = {**HELD, "heart": {"w": torch.ones(1)}}
    updates = {"backbone": {"w": torch.ones(2)}, "heart": {"w": torch.ones(1)}}
    with pytest.raises(Refused, match=reason):
        check(Contribution("a", updates, 1, 1, by_domain), held, Rules())
    check(Contribution("a", updates, 1, 1, {"heart": 1}), held, Rules())
