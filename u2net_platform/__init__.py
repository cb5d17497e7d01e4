"""One small network that segments organs in the 3D images of many domains."""

from __future__ import annotations

import os

__version__ = "0.1.0"

# No dependency phones home: hospitals' networks watch for it. Set before any of them is imported.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
)
