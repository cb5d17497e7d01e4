"""A version of the catalog as something that predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.plan import Plan
from u2net_platform.domains.plugin import DomainPlugin, with_hooks
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.inference.predictor import Predictor
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.partition import BACKBONE
from u2net_platform.settings import Settings
from u2net_platform.workflows.add_domain import find_added
from u2net_platform.workflows.compatibility import fitting


@dataclass(frozen=True)
class LoadedVersion:
    """A version with everything that it needs; `plugin` has the version's spec."""

    record: VersionRecord
    predictor: Predictor
    plugin: DomainPlugin
    plan: Plan


def load_predictor(
    settings: Settings,
    reference: str,
    device: torch.device,
    memory: int | None = None,
    mirror: bool = False,
) -> LoadedVersion:
    """Put a version together from catalog, weights and, where it was made with hooks, its plugin.

    memory, mirror: see `Predictor`.

    Raises:
        UnknownDomain, UnknownRecord: the catalog has no such version.
        MissingFile, DigestMismatch: its weights are gone or altered.
        IncompatibleParts: they do not fit together, or the plugin's code is not the version's.
    """
    catalog = Catalog.open(settings.database_url)
    record = catalog.find(reference)
    plugin = _plugin(settings, catalog, record)
    plan = Plan.model_validate(record.plan)
    network = load_network(WeightStore(settings.weights_dir), record)
    predictor = Predictor(network, plugin, plan, device, memory=memory, mirror=mirror)
    return LoadedVersion(record, predictor, plugin, plan)


def load_network(store: WeightStore, record: VersionRecord) -> UniversalUNet:
    """A network with the version's backbone and domain.

    Raises:
        MissingFile, DigestMismatch: its weights are gone or altered.
        IncompatibleParts: they do not fit together.
    """
    architecture, topology = fitting(record, record, record.reference)
    network = build_network(architecture, {record.domain: topology})
    network.load_owner(BACKBONE, store.get(record.backbone_digest))
    network.load_owner(record.domain, store.get(record.domain_digest))
    return network


def _plugin(settings: Settings, catalog: Catalog, record: VersionRecord) -> DomainPlugin:
    """The version's own spec, with hooks from disk only where they are those it was made with."""
    spec = DomainSpec.parse(record.spec, f"the spec of {record.reference}")
    return with_hooks(
        spec,
        record.plugin_digest,
        lambda: find_added(record.domain, settings, catalog).working,
        record.reference,
        "Put back that plugin (u2net domain add --help), or train a new version with the one that"
        " is there.",
    )
