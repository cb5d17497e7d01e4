"""Rows named by the digest of what they hold: written once, shared by all that name them."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy.orm import Session

from u2net_platform.catalog.tables import PlanRow, SpecRow
from u2net_platform.domains.spec import digest_of

ContentRow = TypeVar("ContentRow", SpecRow, PlanRow)


def stored(session: Session, table: type[ContentRow], content: dict[str, Any]) -> ContentRow:
    """The row that holds this content, added if there is none yet."""
    digest = digest_of(content)
    row = session.get(table, digest)
    if row is None:
        row = table(digest=digest, content=content)
        session.add(row)
    return row
