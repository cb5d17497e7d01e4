"""Deploy a version if it is good enough: a rule on its scores, also against what is in service."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.deployments import not_evaluated
from u2net_platform.catalog.records import DeploymentRecord, Slot, VersionRecord, scores_key
from u2net_platform.errors import InvalidRule, NotEvaluated, RuleNotMet, UnknownRecord

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
    """As `dice >= 0.9`, `posterior.hd95_mm < 3` or `dice >= current`."""

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

    Where nothing is in service, or nothing that was ever tested, conditions against it hold.

    on: the name of another data set, whose scores count instead of those of test cases.

    Raises:
        InvalidRule: the rule cannot be read, or a class or score in it is not among the version's.
        RuleNotMet: with every condition that does not hold, and the score.
        NotEvaluated: the version has no such scores, or what is in service has none `on` that data.
        InvalidSlot: as `Deployments.deploy`.
    """
    conditions = parse_rule(rule)
    current = _in_service(catalog, slot)
    _require_scores(catalog, version, on)
    if on and current and any(one.bound is None for one in conditions):
        _require_scores(catalog, current, on)
    broken = [text for one in conditions if (text := _broken(one, version, current, on))]
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
        return catalog.deployments.version_in_service(slot)
    except UnknownRecord:
        return None


def _require_scores(catalog: Catalog, version: VersionRecord, on: str | None) -> None:
    if scores_key(on) in version.metrics:
        return
    if on is None:
        raise not_evaluated(version.reference, catalog.runs.get(version.run_id).fold)
    raise NotEvaluated(
        f"{version.reference} has no scores on {on}",
        f"Score it there: u2net evaluate {version.reference} --cases all --data FOLDER --keep {on}",
    )


def _broken(
    one: Condition, version: VersionRecord, current: VersionRecord | None, on: str | None
) -> str:
    """Why the condition does not hold; empty if it does."""
    score, bound = _score(one, version, on), one.bound
    if bound is None:
        bound = _score(one, current, on) if current else None
        if bound is None:
            return ""
    if score is not None and COMPARISONS[one.comparison](score, bound):
        return ""
    return f"{one.text} does not hold ({'no score' if score is None else f'{score:.4g}'})"


def _score(one: Condition, version: VersionRecord, on: str | None) -> float | None:
    means: dict[str, Any] | None = version.metrics.get(scores_key(on))
    if means is None:
        return None
    scores = means["overall"] if one.label is None else means["classes"].get(one.label)
    if scores is None:
        raise InvalidRule(
            f"{version.reference} has no class {one.label!r}",
            f"Its classes are {', '.join(means['classes'])}.",
        )
    value = scores.get(one.metric)
    return None if value is None else float(value)
