"""A spec as the text of a domain.toml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from u2net_platform.domains.spec import DomainSpec


def to_toml(spec: DomainSpec) -> str:
    """The text of a domain.toml that `DomainSpec.load` reads back as the same spec."""
    content = spec.model_dump(mode="json")
    tables = {key: content.pop(key) for key, value in [*content.items()] if isinstance(value, dict)}
    labels = content.pop("labels")
    blocks = [_lines(content)]
    blocks += [f"[[labels]]\n{_lines(label)}" for label in labels]
    blocks += [f"[{key}]\n{_lines(table)}" for key, table in tables.items()]
    return "\n".join(blocks)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_scalar(value)}\n" for key, value in table.items())


def _scalar(value: Any) -> str:
    # JSON's scalars and lists are TOML's, but for surrogate pairs and a bare DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
