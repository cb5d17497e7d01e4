"""How a version is named: `heart`, `heart:3`, `heart@champion`, `heart@champion/north`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from u2net_platform.errors import UnknownRecord

NAME = r"[a-z][a-z0-9_-]{0,62}"
REFERENCE = re.compile(
    rf"(?P<domain>{NAME})(:(?P<number>[1-9]\d{{0,8}})|@(?P<alias>{NAME})(/(?P<site>{NAME}))?)?"
)


@dataclass(frozen=True)
class Reference:
    """A version by its number, or by what is deployed; the latest of the domain if by neither."""

    domain: str
    number: int | None = None
    alias: str | None = None
    site: str | None = None


def parse_reference(text: str) -> Reference:
    """Read a version's name.

    Raises:
        UnknownRecord: the text names no version.
    """
    match = REFERENCE.fullmatch(text)
    if not match:
        raise UnknownRecord(
            f"{text!r} names no version",
            "Write a domain, as heart; a version, as heart:3; or what is deployed, as "
            "heart@champion.",
        )
    number = int(match["number"]) if match["number"] else None
    return Reference(match["domain"], number, match["alias"], match["site"])
