"""Deploy a version if it is good enough: a rule on its scores, also against what is in service."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import DeploymentRecord, Slot, VersionRecord, scores_key
from u2net_platform.errors import InvalidRule, NotEvaluated, RuleNotMet, UnknownRecord

Scores = dict[str, Any]  # `Report.mean`, as JSON

CURRENT = "current"  # on the right side of a condition: what is in service now
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(
    r"\s*((?P<label>[^<>=]+?)\.)?(?P<metric>dice|hd95_mm|surface_dice)\s*(?P<comparison>[<>]=?)\s*"
    rf"(?P<bound>\d+(\.\d+)?|{CURRENT})\s*"
)


@dataclass(frozen=True)
class Condition:
    """As `dice >= 0.9`, `posterior.hd95_mm < 3` or `dice >= current`, on scores of test cases."""

    text: str
    label: str | None
    metric: str
    comparison: str
    bound: float | None  # None: the score of what is in service


def promote(
    catalog: Catalog,
    version: VersionRecord,
    slot: Slot,
    rule: str,
    actor: str,
    on: str | None = None,
) -> DeploymentRecord:
    """Deploy a version where all conditions of the rule hold; the rule becomes the reason.

    Where nothing is in service, or nothing that has these scores, conditions against it hold.

    on: the name of another data set, whose scores count instead of those of test cases.

    Raises:
        InvalidRule: the rule cannot be read, or a class or score in it is not among the version's.
        RuleNotMet: with every condition that does not hold, and the score.
        NotEvaluated: the version has no such scores.
        InvalidSlot: as `Deployments.deploy`.
    """
    conditions = parse_rule(rule)
    key = scores_key(on)
    if key not in version.metrics:
        raise NotEvaluated(
            f"{version.reference} has no scores of {on or 'test cases'}",
            f"Evaluate it: u2net evaluate {version.reference}"
            + (f" --cases all --data FOLDER --keep {on}" if on else ""),
        )
    scores = version.metrics[key]
    current = _in_service(catalog, slot)
    others = current.metrics.get(key) if current else None
    broken = [text for one in conditions if (text := _broken(one, scores, others))]
    if broken:
        raise RuleNotMet(
            f"{version.reference} stays out of service as {slot}: {'; '.join(broken)}",
            "Train a better one, or change the rule; or deploy it without: u2net model deploy",
        )
    reason = f"promoted: {rule}" + (f" on {on}" if on else "")
    return catalog.deployments.deploy(slot, version.number, actor, reason)


def parse_rule(rule: str) -> list[Condition]:
    """Read conditions joined by `and`.

    Raises:
        InvalidRule
    """
    return [_condition(text) for text in rule.split(" and ")]


def _condition(text: str) -> Condition:
    match = CONDITION.fullmatch(text)
    if not match:
        raise InvalidRule(
            f"{text.strip()!r} is no condition",
            "Write one like: dice >= 0.9 and hd95_mm < 5 and posterior.dice >= current",
        )
    bound = None if match["bound"] == CURRENT else float(match["bound"])
    return Condition(text.strip(), match["label"], match["metric"], match["comparison"], bound)


def _in_service(catalog: Catalog, slot: Slot) -> VersionRecord | None:
    try:
        return catalog.find(catalog.deployments.in_service(slot).version)
    except UnknownRecord:
        return None


def _broken(one: Condition, scores: Scores, current: Scores | None) -> str:
    """Why the condition does not hold; empty if it does."""
    score = _score(one, scores)
    bound = one.bound
    if bound is None:
        bound = _score(one, current) if current else None
        if bound is None:
            return ""
    if score is not None and COMPARISONS[one.comparison](score, bound):
        return ""
    return f"{one.text} does not hold ({'no score' if score is None else f'{score:.4g}'})"


def _score(one: Condition, means: Scores) -> float | None:
    scores = means["overall"] if one.label is None else means["classes"].get(one.label)
    if scores is None:
        raise InvalidRule(
            f"There are no scores of a class {one.label!r}",
            f"The classes are {', '.join(means['classes'])}.",
        )
    value = scores.get(one.metric)
    return None if value is None else float(value)
