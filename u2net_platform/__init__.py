"""One small network that segments organs in the 3D images of many domains."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from u2net_platform.api import Model as Model
    from u2net_platform.api import load as load
    from u2net_platform.catalog.catalog import Catalog as Catalog

__version__ = "0.1.0"

# No dependency phones home: hospitals' networks watch for it. Set before any of them is imported.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
)


def __getattr__(name: str) -> Any:
    """`load`, `Model` and `Catalog`, imported when first asked for: torch takes its time."""
    from importlib import import_module

    homes = {"load": "api", "Model": "api", "Catalog": "catalog.catalog"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
