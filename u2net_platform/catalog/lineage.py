"""Which runs build on which: what weights have learned goes on to all that begin with them."""

from __future__ import annotations

from sqlalchemy import (
    CTE,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)

from u2net_platform.catalog.tables import RunBaseRow, RunDomainRow, RunRow, VersionRow

WAYS = ("trained", "used", "based", "began")


def building_on(runs: Select[str], name: str) -> CTE:
    """These runs and all that build on them, and the backbones between them: ids and digests.

    A run builds on those that trained its backbone or that of its base, whichever version that is,
    and on those that made what its domains began with. One that adapts leaves the backbone as it
    is. `workflows.learned_cases` goes the other way.
    """
    (first,) = runs.selected_columns
    nodes = runs.with_only_columns(cast(first, String).label("node")).cte(name, recursive=True)
    # PostgreSQL lets a recursion name itself once: all ways on from a node are one join.
    ways = union_all(*(select(literal(way).label("way")) for way in WAYS)).subquery()
    node, way = nodes.c.node, ways.c.way
    following = case(
        (way == "trained", VersionRow.backbone_digest),
        (way == "used", VersionRow.run_id),
        else_=func.coalesce(RunBaseRow.run_id, RunDomainRow.run_id),
    )
    version = or_(
        and_(way.in_(("trained", "began")), VersionRow.run_id == node),
        and_(way.in_(("used", "based")), VersionRow.backbone_digest == node),
    )
    based = and_(way == "based", RunBaseRow.version_id == VersionRow.id)
    began = and_(way == "began", RunDomainRow.start_id == VersionRow.id)
    return nodes.union(
        select(following)
        .select_from(nodes)
        .join(ways, true())
        .join(VersionRow, version)
        .join(RunRow, RunRow.id == VersionRow.run_id)
        .outerjoin(RunBaseRow, based)
        .outerjoin(RunDomainRow, began)
        .where(or_(way != "trained", RunRow.kind != "adapt"), following.is_not(None))
    )
