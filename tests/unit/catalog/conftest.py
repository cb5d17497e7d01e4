"""A fresh catalog, and what is needed to publish in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord

SPEC = {"name": "heart", "channels": ["MR"], "labels": [{"name": "left atrium", "values": [1]}]}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/home/catalog.db"


@pytest.fixture
def catalog(url: str) -> Catalog:
    return Catalog.open(url)


@pytest.fixture
def new_run() -> Callable[..., RunRecord]:
    def build(**changes: Any) -> RunRecord:
        fields: dict[str, Any] = {
            "id": "run-1",
            "kind": "train",
            "mode": "universal",
            "domains": ("heart",),
            "recipe": {"steps": 10, "betas": (0.9, 0.999)},
            "seed": 7,
            "fold": 0,
            "device": "cpu",
            "directory": "/runs/run-1",
        }
        return RunRecord(**fields | changes)

    return build


@pytest.fixture
def new_version() -> Callable[..., NewVersion]:
    def build(**changes: Any) -> NewVersion:
        fields: dict[str, Any] = {
            "domain": "heart",
            "backbone_digest": "b" * 64,
            "backbone_architecture": {"widths": (16, 32)},
            "domain_digest": "d" * 64,
            "spec": SPEC,
            "plugin_digest": "a" * 64,
            "plan": {"patch_zyx": (80, 192, 128)},
            "run_id": "run-1",
            "architecture": {"classes": 2},
        }
        return NewVersion(**fields | changes)

    return build


@pytest.fixture
def trained(catalog: Catalog, new_run: Callable[..., RunRecord]) -> Catalog:
    """A catalog with the domains heart and liver, and a run of both."""
    catalog.domains.add(SPEC, "heart", "a" * 64, "bundled")
    catalog.domains.add({**SPEC, "name": "liver"}, "liver", "a" * 64, "bundled")
    catalog.runs.create(new_run(domains=("liver", "heart")))
    return catalog
