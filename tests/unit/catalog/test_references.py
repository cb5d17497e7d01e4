from __future__ import annotations

import pytest

from u2net_platform.catalog.references import Reference, parse_reference
from u2net_platform.errors import UnknownRecord


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("heart", Reference("heart")),
        ("left-lung_2:13", Reference("left-lung_2", number=13)),
        ("heart@champion", Reference("heart", alias="champion")),
        ("heart@trial/north", Reference("heart", alias="trial", site="north")),
    ],
)
def test_a_version_is_named_by_number_or_by_what_is_deployed(
    text: str, expected: Reference
) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "heart:",
        "heart:0",
        "heart:x",
        "heart:1:2",
        "../heart",
        "heart@",
        "heart@a/",
        "heart/n",
        "heart:1@champion",
        "heart@a/b/c",
        "heart:999999999999",
    ],
)
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(UnknownRecord, match="names no version"):
        parse_reference(text)
