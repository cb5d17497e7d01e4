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
from u2net_platform.errors import Conflict, InvalidRule, NotEvaluated, RuleNotMet, UnknownRecord

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
        Conflict: what is in service was tested on other cases, or has changed meanwhile.
        InvalidSlot: as `Deployments.deploy`.
    """
    conditions = parse_rule(rule)
    known, current = _in_service(catalog, slot)
    _require_scores(catalog, version, on)
    compares = any(one.bound is None for one in conditions)
    if current and compares:
        _require_comparable(catalog, version, current, on)
    broken = [text for one in conditions if (text := _broken(one, version, current, on))]
    if broken:
        raise RuleNotMet(
            f"{version.reference} stays out of service as {slot}: {'; '.join(broken)}",
            "Train a better one, or change the rule; or deploy it without: u2net model deploy",
        )
    reason = f"promoted: {rule}" + (f" on {on}" if on else "")
    if compares:
        return catalog.deployments.replace(known, slot, version.number, actor, reason)
    return catalog.deployments.deploy(slot, version.number, actor, reason)


def parse_rule(rule: str) -> list[Condition]:
    """Read conditions joined by `and`.

    Raises:
        InvalidRule
    """
    found, text = [], ""
    for part in rule.split(" and "):
        text += part
        if match := CONDITION.fullmatch(text):
            found.append(_condition(match))
            text = ""
        else:
            text += " and "  # of the name of a class
    if text:
        raise InvalidRule(
            f"{text.removesuffix(' and ').strip()!r} is no condition",
            "Write one like: dice >= 0.9 and hd95_mm < 5 and posterior.dice >= current",
        )
    return found


def _condition(match: re.Match[str]) -> Condition:
    bound = None if match["bound"] == CURRENT else float(match["bound"])
    return Condition(match[0].strip(), match["label"], match["metric"], match["comparison"], bound)


def _in_service(
    catalog: Catalog, slot: Slot
) -> tuple[DeploymentRecord, VersionRecord] | tuple[None, None]:
    try:
        deployed = catalog.deployments.in_service(slot)
    except UnknownRecord:
        return None, None
    assert deployed.version is not None  # it is in service
    return deployed, catalog.find(deployed.version)


def _require_comparable(
    catalog: Catalog, version: VersionRecord, current: VersionRecord, on: str | None
) -> None:
    """Raises NotEvaluated, Conflict."""
    if on is not None:
        _require_scores(catalog, current, on)
    elif scores_key(None) in current.metrics and not _same_test(catalog, version, current):
        raise Conflict(
            f"{version.reference} and {current.reference} are not known to be tested on the same"
            " cases, so that neither score says which is better",
            "Score both on one data set (u2net evaluate VERSION --cases all --data FOLDER --keep"
            " NAME), then promote with --on NAME; or name a number instead of `current`.",
        )


def _same_test(catalog: Catalog, version: VersionRecord, current: VersionRecord) -> bool:
    """Whether two versions have the same test cases, or, where no names came with them, the same
    cases to learn from, which leaves the same to be tested."""
    runs = [catalog.runs.get(one.run_id) for one in (version, current)]
    named, other = (set(run.cases(version.domain, "test")) for run in runs)
    if named and other:
        return named == other
    data, others = (run.fingerprints.get(version.domain, {}).get("data_digest") for run in runs)
    return data is not None and data == others


def _require_scores(catalog: Catalog, version: VersionRecord, on: str | None) -> None:
    if scores_key(on) in version.metrics:
        return
    if on is None:
        raise not_evaluated(version.reference, catalog.runs.get(version.run_id))
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
    means = version.metrics[scores_key(on)]
    if one.metric == "hd95_mm" and (failures := means.get("failures")):
        found = f"{failures} of {means['cases']} cases failed, and have no distance"
    elif score is not None and COMPARISONS[one.comparison](score, bound):
        return ""
    else:
        found = "no score" if score is None else f"{score:.4g}"
    return f"{one.text} does not hold ({found})"


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
