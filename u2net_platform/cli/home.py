"""This machine's settings and its catalog, as commands open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings


def open_home() -> tuple[Settings, Catalog]:
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings

    settings = Settings()
    return settings, Catalog.open(settings.database_url)


def open_catalog() -> Catalog:
    return open_home()[1]
