"""Sites of made-up domains, small enough that a round takes a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from u2net_platform.federation.request import FederationRequest
from u2net_platform.imaging.grid import Grid
from u2net_platform.imaging.volume import write_array
from u2net_platform.settings import Settings
from u2net_platform.training.recipe import Recipe

CASES = 6
SPEC = """\
name = "{name}"
description = "A bright box"
modality = "MR"
channels = ["T1"]
labels = [{{ name = "box", values = [1] }}]
data = {{ dataset = "made up", licence = "CC0-1.0" }}
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A data set of boxes for each domain."""
    import json

    root = tmp_path_factory.mktemp("boxes")

    def make(name: str) -> Path:
        folder = root / name
        if folder.exists():
            return folder
        grid = Grid((10, 14, 14), (2.0, 1.0, 1.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        pairs = []
        for number in range(CASES):
            labels = np.zeros(grid.shape_zyx, np.uint8)
            labels[3:7, 4 : 9 + number % 3, 5:11] = 1
            noise = np.random.default_rng([number, len(name)]).normal(0, 20, labels.shape)
            image = (100 + 300.0 * labels + noise).astype(np.int16)
            pair = {kind: f"{kind}sTr/{name}_{number}.nii.gz" for kind in ("image", "label")}
            write_array(folder / pair["image"], image[None], grid)
            write_array(folder / pair["label"], labels[None], grid)
            pairs.append(pair)
        description = {
            "name": name,
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "box"},
            "training": pairs,
        }
        (folder / "dataset.json").write_text(json.dumps(description))
        return folder

    return make


@pytest.fixture(scope="session")
def write_site(boxes) -> Callable[..., Path]:
    """Write a site's site.toml and plugins: domain names, or (name, "average")."""

    def write(folder: Path, name: str, *domains: str | tuple[str, str], more: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        text = f'name = "{name}"\nworkers = 0\ndevice = "cpu"\nplugins = "plugins"\n{more}\n'
        for one in domains:
            domain, weights = (one, "local") if isinstance(one, str) else one
            plugin = folder / "plugins" / domain
            plugin.mkdir(parents=True, exist_ok=True)
            (plugin / "domain.toml").write_text(SPEC.format(name=domain))
            text += f'[domains.{domain}]\ndata = "{boxes(domain)}"\nweights = "{weights}"\n'
        (folder / "site.toml").write_text(text)
        return folder

    return write


@pytest.fixture
def new_site(tmp_path: Path, write_site) -> Callable[..., Path]:
    """A site below the test's own folder."""

    def make(name: str, *domains: str | tuple[str, str], more: str = "") -> Path:
        return write_site(tmp_path / "sites" / name, name, *domains, more=more)

    return make


@pytest.fixture
def new_request(settings: Settings, narrow: None) -> Callable[..., FederationRequest]:
    def make(*sites: str, **changes: object) -> FederationRequest:
        fields = {
            "sites": sites, "recipe": Recipe.load("default", batch_voxels=4096), "rounds": 2,
            "cycles": 2, "quorum": 1, "wait_minutes": 0.001, "round_minutes": 2.0,
        } | changes  # fmt: skip
        return FederationRequest.model_validate(fields)

    return make
