"""A spec as the text of a domain.toml."""

from __future__ import annotations

import tomli_w

from u2net_platform.domains.spec import DomainSpec


def to_toml(spec: DomainSpec) -> str:
    """The text of a domain.toml that `DomainSpec.load` reads back as the same spec."""
    return tomli_w.dumps(spec.model_dump(mode="json", exclude_none=True))
