"""Which runs build on which: what weights have learned goes on to all that begin with them."""

from __future__ import annotations

from sqlalchemy import (
    Select,
    String,
    Subquery,
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


def building_on(saw: Select[str], *silent: Select[str]) -> Subquery:
    """Runs of a query and all that build on them, as `node`, among backbones between them.

    A run builds on those that trained its backbone or that of its base, whichever version that is,
    and on those that made what its domains began with. One that adapts leaves the backbone as it
    is. `workflows.learned_cases` goes the other way.

    silent: other runs, and backbones; `sure` is 0 where only these lead to a node, else 1.
    """
    seeds = [_seeds(saw, 1), *(_seeds(one, 0) for one in silent)]
    nodes = select(union_all(*seeds).subquery()).cte(recursive=True)
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
    found = nodes.union(
        select(following, nodes.c.sure)
        .select_from(nodes)
        .join(ways, true())
        .join(VersionRow, version)
        .join(RunRow, RunRow.id == VersionRow.run_id)
        .outerjoin(RunBaseRow, based)
        .outerjoin(RunDomainRow, began)
        .where(or_(way != "trained", RunRow.kind != "adapt"), following.is_not(None))
    )
    sure = func.max(found.c.sure).label("sure")
    return select(found.c.node, sure).group_by(found.c.node).subquery()


def _seeds(nodes: Select[str], sure: int) -> Select[str, int]:
    (node,) = nodes.selected_columns
    return nodes.with_only_columns(cast(node, String).label("node"), literal(sure).label("sure"))
