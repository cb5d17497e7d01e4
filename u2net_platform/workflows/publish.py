"""A trained domain as a version that can be published, whatever trained it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from u2net_platform.catalog.records import NewVersion
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.borders import border_of
from u2net_platform.data.places import places_of
from u2net_platform.data.store import PreparedCase
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.inference.postprocessing import keep_largest
from u2net_platform.inference.predictor import Predictor
from u2net_platform.model.network import UniversalUNet
from u2net_platform.model.partition import BACKBONE
from u2net_platform.workflows.compatibility import fitting
from u2net_platform.workflows.prepare import PreparedDomain
from u2net_platform.workflows.verify import take_probe


def new_version(
    network: UniversalUNet,
    domain: PreparedDomain,
    run_id: str,
    store: WeightStore,
    device: torch.device,
    metrics: Mapping[str, Any],
) -> NewVersion:
    """Store the weights; describe what they are, and which classes are cleaned after them.

    Raises:
        IncompatibleParts: the parts do not fit together.
    """
    name, spec = domain.plugin.name, domain.plugin.spec
    places = places_of(spec.class_names, domain.training)
    border = border_of(spec, domain.training)
    plan = domain.plan.model_copy(update={"places": places, "border": border})
    chosen = scattered_classes(Predictor(network, domain.plugin, plan, device), domain.validation)
    new = NewVersion(
        **stored_weights(network, name, store),
        spec=spec.document(),
        plugin_digest=domain.plugin.digest,
        plan=plan.model_copy(update={"keep_largest": chosen}).model_dump(mode="json"),
        run_id=run_id,
        metrics=dict(metrics),
    )
    fitting(new, new, f"a version of {name}")
    return new


def stored_weights(network: UniversalUNet, name: str, store: WeightStore) -> dict[str, Any]:
    """Store a domain's weights and the backbone's; what a version says of them."""
    return {
        "domain": name,
        "backbone_digest": store.put(network.owner_state(BACKBONE)),
        "backbone_architecture": network.architecture.model_dump(mode="json"),
        "domain_digest": store.put(network.owner_state(name)),
        "architecture": network.topology(name).model_dump(mode="json"),
        "probe": take_probe(network, name, store),
    }


def scattered_classes(predictor: Predictor, cases: Sequence[PreparedCase]) -> tuple[str, ...]:
    """Classes whose mean Dice over validation cases rises when only the largest part is kept.

    Source: Isensee et al., nnU-Net, Nature Methods 18 (2021), methods, empirical parameters.
    """
    spec = predictor.plugin.spec
    gains: dict[int, list[float]] = {value: [] for value in range(1, spec.classes)}
    for case in cases:
        labels, hidden = case.labels, spec.hidden_classes(case.id)
        found, grid = predictor.predict_prepared(case.image), case.grid
        if border := predictor.plan.border:
            border.draw(found, spec.class_names, grid.spacing_zyx_mm)
        before = dice_by_class(labels, found, spec.classes, hidden)
        for value, dice in before.items():
            kept = found.copy()
            place = predictor.plan.places.get(spec.class_names[value - 1])
            keep_largest(kept, value, place.on(grid, grid) if place else None)
            after = dice_by_class(labels, kept, spec.classes, hidden)
            gains[value].append(after.get(value, 0.0) - dice)
    return tuple(
        name
        for value, name in enumerate(spec.class_names, start=1)
        if gains[value] and fmean(gains[value]) > 0
    )
