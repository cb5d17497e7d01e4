"""What the benchmarks beside nnU-Net v2 share: one data set for both, and their plans of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from u2net_platform.data.dataset import Dataset, open_dataset
from u2net_platform.data.plan import Plan
from u2net_platform.data.splits import splitter
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.workflows.export_nnunet import export_nnunet
from u2net_platform.workflows.new_domain import write_plugin
from u2net_platform.workflows.prepare import plan_domain

NUMBER = 999  # of the data set, for nnU-Net


@dataclass(frozen=True)
class Shared:
    """The first cases of a data set, exported as nnU-Net's raw data, which both sides read."""

    dataset: Dataset
    plugin: DomainPlugin
    plan: Plan
    preprocessed: Path

    @property
    def their_plans(self) -> Any:
        """nnU-Net's own plans, as its PlansManager."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415

        (file,) = self.preprocessed.glob("*/nnUNetPlans.json")
        return PlansManager(str(file))

    @property
    def their_description(self) -> Any:
        """nnU-Net's dataset.json."""
        (file,) = self.preprocessed.glob("*/dataset.json")
        return json.loads(file.read_text("utf-8"))


def share(source: Path, cases: int, folder: Path, processes: int, batch_voxels: int) -> Shared:
    """Export, and plan on both sides for the same spacing. nnU-Net is imported after its folders
    are in the environment, which it reads when it is imported."""
    raw, preprocessed = folder / "raw", folder / "preprocessed"
    os.environ |= {
        "nnUNet_raw": str(raw),
        "nnUNet_preprocessed": str(preprocessed),
        "nnUNet_results": str(folder / "results"),
        "LOKY_MAX_CPU_COUNT": str(processes),
    }
    dataset = open_dataset(source)
    plugin = DomainPlugin.load(write_plugin("benchmark", dataset, folder))
    labelled = [case for case in dataset.training if case.label is not None]
    few = replace(dataset, training=tuple(labelled[:cases]), test=())
    exported = export_nnunet(plugin, few, raw, NUMBER, lambda _: None)
    # What the export holds has the domain's classes already.
    plugin = DomainPlugin.load(write_plugin("exported", open_dataset(exported), folder))
    plan = plan_domain(
        folder / "ours", plugin, exported, splitter(0), batch_voxels, lambda _: None
    ).plan

    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet  # noqa: PLC0415

    nnunet.extract_fingerprints([NUMBER], num_processes=processes)
    nnunet.plan_experiments([NUMBER], overwrite_target_spacing=plan.spacing_zyx_mm)
    return Shared(open_dataset(exported), plugin, plan, preprocessed)


def their_network(shared: Shared) -> Any:
    """nnU-Net's own network for the data set, with the weights that it begins with."""
    from nnunetv2.utilities.get_network_from_plans import (  # noqa: PLC0415
        get_network_from_plans,
    )

    of = shared.their_plans.get_configuration("3d_fullres")
    return get_network_from_plans(
        of.network_arch_class_name,
        of.network_arch_init_kwargs,
        of.network_arch_init_kwargs_req_import,
        len(shared.plugin.spec.channels),
        shared.plugin.spec.classes,
        deep_supervision=False,
    )
