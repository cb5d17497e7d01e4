"""Every folder of real volumes opens, and its first case is prepared, without special handling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from u2net_platform.data.dataset import open_dataset
from u2net_platform.data.plan import derive_plan, take_fingerprint
from u2net_platform.data.store import PreparedStore
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec

FOLDERS = (
    "Task02_Heart",
    "Task03_Liver",
    "Task04_Hippocampus",
    "Task05_Prostate",
    "Task07_Pancreas",
    "Task09_Spleen",
    "Task21_HeadNeck",
    "Task25_Promise12",
)
PLUGINS = Path(__file__).parents[3] / "plugins"


def plugin_for(folder: Path) -> DomainPlugin:
    """The bundled plugin if there is one, else one made from what the folder says; at 4 mm or
    coarser, since this is about whether and not about how well."""
    dataset = open_dataset(folder)
    bundled = PLUGINS / folder.name.partition("_")[2].lower() / "domain.toml"
    if bundled.exists():
        content = DomainSpec.load(bundled).model_dump()
    else:
        content = {
            "name": dataset.name.lower(),
            "description": dataset.description,
            "modality": dataset.modality,
            "channels": dataset.channels,
            "labels": [{"name": name, "values": [v]} for v, name in dataset.labels.items()],
            "intensity": {"statistics": "dataset" if dataset.modality == "CT" else "image"},
            "data": {"dataset": dataset.name, "licence": dataset.licence},
        }
    geometry = {"spacing_zyx_mm": [4.0, 2.0, 2.0]}
    return DomainPlugin(DomainSpec.model_validate(content | {"geometry": geometry}), PLUGINS)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_real_folder_opens_and_its_first_case_is_prepared(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    folder = real_data / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    plugin, case = plugin_for(folder), open_dataset(folder).training[0]
    fingerprint = take_fingerprint(plugin, [case], lambda _: None)
    plan = derive_plan(plugin.spec, fingerprint, 2**18)
    prepared = PreparedStore(tmp_path).prepare(plugin, plan, case)
    assert len(prepared.image) == len(plugin.spec.channels)
    assert prepared.image.shape[1:] == prepared.labels.shape
    assert np.isfinite(prepared.image).all() and prepared.image.std() > 0.1
    assert prepared.foreground
