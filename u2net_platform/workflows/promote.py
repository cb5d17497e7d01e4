"""Deploy a version if it is good enough: a rule on its scores, also against what is in service."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import DeploymentRecord, Slot, VersionRecord
from u2net_platform.errors import InvalidRule, RuleNotMet, UnknownRecord

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
    catalog: Catalog, version: VersionRecord, slot: Slot, rule: str, actor: str
) -> DeploymentRecord:
    """Deploy a version where all conditions of the rule hold; the rule becomes the reason.

    Where nothing is in service, conditions against it hold.

    Raises:
        InvalidRule: the rule cannot be read, or a class or score in it is not among the version's.
        RuleNotMet: with every condition that does not hold, and the score.
        NotEvaluated: the version has no test scores.
        InvalidSlot: as `Deployments.deploy`.
    """
    conditions = parse_rule(rule)
    current = _in_service(catalog, slot)
    if "test" in version.metrics:
        broken = [text for one in conditions if (text := _broken(one, version, current))]
        if broken:
            raise RuleNotMet(
                f"{version.reference} stays out of service as {slot}: {'; '.join(broken)}",
                "Train a better one, or change the rule; or deploy it without: u2net model deploy",
            )
    return catalog.deployments.deploy(slot, version.number, actor, f"promoted: {rule}")


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


def _broken(one: Condition, version: VersionRecord, current: VersionRecord | None) -> str:
    """Why the condition does not hold; empty if it does."""
    score, bound = _score(one, version), one.bound
    if bound is None:
        if current is None or "test" not in current.metrics:
            return ""
        bound = _score(one, current)
        if bound is None:
            return ""
    if score is not None and COMPARISONS[one.comparison](score, bound):
        return ""
    return f"{one.text} does not hold ({'no score' if score is None else f'{score:.4g}'})"


def _score(one: Condition, version: VersionRecord) -> float | None:
    test: dict[str, Any] = version.metrics["test"]
    scores = test["overall"] if one.label is None else test["classes"].get(one.label)
    if scores is None:
        raise InvalidRule(
            f"{version.reference} has no class {one.label!r}",
            f"Its classes are {', '.join(test['classes'])}.",
        )
    value = scores.get(one.metric)
    return None if value is None else float(value)
