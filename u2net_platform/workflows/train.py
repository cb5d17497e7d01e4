"""A training run from its first case to its published versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord, VersionRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.plan import Plan, training_bytes
from u2net_platform.data.splits import split_cases, splitter
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import (
    Conflict,
    IncompatibleParts,
    Interrupted,
    NothingToResume,
)
from u2net_platform.files import exclusive, write_text
from u2net_platform.inference.device import choose_device
from u2net_platform.memory import free_bytes
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.partition import BACKBONE
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder
from u2net_platform.tracking.outbox import OUTBOX_FILE, OutboxRecorder
from u2net_platform.tracking.recorder import Recorder, report_end
from u2net_platform.training.trainer import Options, Trainer, Watcher
from u2net_platform.workflows.add_domain import data_dir_of, find_added
from u2net_platform.workflows.compatibility import faults_of, geometry_of
from u2net_platform.workflows.prepare import (
    PlannedDomain,
    PreparedDomain,
    fingerprints_of,
    plan_domain,
    prepare_domain,
)
from u2net_platform.workflows.publish import new_version
from u2net_platform.workflows.register import keep_registered
from u2net_platform.workflows.request import (
    LOCK_FILE,
    REQUEST_FILE,
    Request,
    new_run_id,
    request_of,
)
from u2net_platform.workflows.warm_start import based_on, with_nearest

PAPER_PATCH_ZYX = (128, 128, 128)

OnPrepare = Callable[[str, str], None]
Domain = TypeVar("Domain")


@dataclass(frozen=True)
class Finished:
    """A completed run and the versions that came of it."""

    run: RunRecord
    versions: tuple[VersionRecord, ...]
    curves: Mapping[str, list[tuple[int, float]]]


def start(
    settings: Settings, request: Request, watcher: Watcher, on_prepare: OnPrepare
) -> Finished:
    """Prepare, train and publish; returns when it is done.

    Raises:
        U2NetError: the reason, with a remedy. The run can be resumed where it began to train.
    """
    catalog = Catalog.open(settings.database_url)
    device = choose_device(request.device)
    base = catalog.find(request.base) if request.base else None
    if base is not None:
        request = based_on(catalog, request, base)
    prepared = _prepare(settings, catalog, request, on_prepare)
    if base is not None and request.adapts and request.warm_start == "auto":
        request = with_nearest(catalog, request, base, prepared)
    architecture = architecture_of(request)
    for name, one in prepared.items():
        spec, plan = one.plugin.spec, one.plan
        faults = faults_of(spec, plan, topology_of(spec, plan, architecture), architecture)
        if text := "; ".join(faults):
            raise IncompatibleParts(
                f"{name} could be trained, but not published: {text}",
                "Correct its domain.toml, or the headers of its images.",
            )
        if note := _memory_note(name, plan, spec.classes, architecture, device):
            watcher.on_note(note)
        fold = split_cases(one.split.cases, request.fold, one.plugin.spec.subject_of)
        if moved := len(fold.test) - len(one.split.test):
            watcher.on_note(
                f"{name}: test cases that its base has learned from train instead: {moved}"
            )
    run_id = new_run_id()
    directory = settings.runs_dir / run_id
    recorder = OutboxRecorder(
        directory / OUTBOX_FILE, lambda: MLflowRecorder(settings, run_id), watcher.on_note
    )
    request = request.model_copy(
        update={
            "plans": {name: domain.plan.digest for name, domain in prepared.items()},
            "plugins": {name: one.plugin.effective_digest for name, one in prepared.items()},
            "mlflow_run_id": recorder.run_id,
        }
    )
    with exclusive(directory / LOCK_FILE):
        write_text(directory / REQUEST_FILE, request.model_dump_json(indent=2))
        catalog.runs.create(_record(run_id, request, prepared, directory, str(device)))
        watcher.on_note(f"Run {run_id}; go on with: u2net train --resume {run_id}")
        recorder.log_params(_parameters(request))
        for name, one in prepared.items():
            recorder.log_text(one.plugin.spec.model_dump_json(indent=2), f"{name}/spec.json")
            recorder.log_text(one.plan.model_dump_json(indent=2), f"{name}/plan.json")
        return _Run(settings, catalog, run_id, request, prepared, recorder).go(watcher, False)


def resume(
    settings: Settings,
    run_id: str,
    watcher: Watcher,
    on_prepare: OnPrepare,
    place: Mapping[str, Any] = MappingProxyType({}),
) -> Finished:
    """Go on with a run that was stopped or killed, to the weights it would have reached.

    place: another `device`, or number of `workers`, than the run began with.

    Raises:
        UnknownRecord, NothingToResume: there is no such run, or it is completed.
        RunBusy: another process works on it.
        IncompatibleParts: its data or its plugins have changed since.
    """
    catalog = Catalog.open(settings.database_url)
    record = catalog.runs.get(run_id)
    if record.status == "completed":
        raise NothingToResume(f"{run_id} is completed", "See its versions: u2net model list")
    directory = settings.runs_dir / run_id
    request = request_of(settings, run_id)
    if request is None:
        raise NothingToResume(
            f"{directory / REQUEST_FILE} is gone, or of another release", "Start the run anew."
        )
    request = request.model_copy(update=dict(place))
    with exclusive(directory / LOCK_FILE):
        prepared = _prepare(settings, catalog, request, on_prepare)
        if changed := _changed(record, request, prepared):
            raise IncompatibleParts(
                f"the data or plugin of {', '.join(changed)} have changed since {run_id} began",
                "Put them back as they were, or start a new run.",
            )
        recorder = OutboxRecorder(
            directory / OUTBOX_FILE,
            lambda: MLflowRecorder(settings, run_id, request.mlflow_run_id),
            watcher.on_note,
        )
        return _Run(settings, catalog, run_id, request, prepared, recorder).go(watcher, True)


def _memory_note(
    name: str, plan: Plan, classes: int, architecture: Architecture, device: torch.device
) -> str | None:
    """What to know where a step may take more main memory than there is."""
    patch_zyx = architecture.common_patch_zyx or plan.patch_zyx
    need, free = training_bytes(plan.batch_size * prod(patch_zyx), classes), free_bytes()
    if device.type != "cpu" or need <= free:
        return None
    return (
        f"{name}: a step takes about {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB"
        " are free. Should the system end it, give fewer --batch-voxels."
    )


def is_current(
    settings: Settings, record: RunRecord, request: Request, on_prepare: OnPrepare
) -> bool:
    """Whether a run's data and plugins are still as they were when it began.

    Raises:
        U2NetError: they cannot be read.
    """
    catalog = Catalog.open(settings.database_url)
    planned = _each(settings, catalog, request, on_prepare, plan_domain)
    return not _changed(record, request, planned)


def _changed(
    record: RunRecord, request: Request, found: Mapping[str, PlannedDomain | PreparedDomain]
) -> list[str]:
    """The domains whose plan, plugin or data are others than when the run began."""
    fingerprints = fingerprints_of(found)
    return [
        name
        for name, one in found.items()
        if request.plans.get(name) != one.plan.digest
        or request.plugins.get(name) != one.plugin.effective_digest
        or record.fingerprints.get(name) != fingerprints[name]
    ]


@dataclass(frozen=True)
class _Run:
    settings: Settings
    catalog: Catalog
    run_id: str
    request: Request
    prepared: Mapping[str, PreparedDomain]
    recorder: Recorder

    @property
    def directory(self) -> Path:
        return self.settings.runs_dir / self.run_id

    def go(self, watcher: Watcher, resuming: bool) -> Finished:
        step = self.catalog.runs.get(self.run_id).step
        try:
            trainer = self._trainer(watcher)
            if resuming:
                self._take_up(trainer)
            self.catalog.runs.update(self.run_id, "running", trainer.step)
            try:
                trainer.run(watcher, self.recorder)
            finally:
                step = trainer.step
            versions = self._publish(trainer)
        except BaseException as error:
            self._end(error, step, watcher)
            raise
        run = self.catalog.runs.update(self.run_id, "completed", step)
        published = [version.model_dump(mode="json") for version in versions]
        text = json.dumps(published, indent=2)
        report_end(lambda: self.recorder.log_text(text, "versions.json"), watcher.on_note)
        report_end(lambda: self.recorder.finish("completed"), watcher.on_note)
        keep_registered(self.settings, self.request.domains, watcher.on_note)
        return Finished(run, versions, trainer.curves)

    def _end(self, error: BaseException, step: int, watcher: Watcher) -> None:
        if isinstance(error, Interrupted):
            error.hint = f"Go on with: u2net train --resume {self.run_id}"
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        status: Literal["interrupted", "failed"] = "interrupted" if stopped else "failed"
        report_end(lambda: self.catalog.runs.update(self.run_id, status, step), watcher.on_note)
        report_end(lambda: self.recorder.finish(status), watcher.on_note)

    def _take_up(self, trainer: Trainer) -> None:
        try:
            trainer.resume()
        except NothingToResume:
            # Killed before its first checkpoint: its beginning is its checkpoint.
            return

    def _trainer(self, watcher: Watcher) -> Trainer:
        request = self.request
        owners = set(request.domains) | (set() if request.adapts else {BACKBONE})
        options = Options(
            seed=request.seed,
            device=choose_device(request.device),
            workers=request.workers,
            owners=frozenset(owners),
            minutes=request.minutes,
        )
        network = self._network(watcher)
        return Trainer(network, self.prepared, request.recipe, options, self.directory)

    def _network(self, watcher: Watcher) -> UniversalUNet:
        base = self._base()
        architecture = (
            Architecture.model_validate(base.backbone_architecture)
            if base
            else architecture_of(self.request)
        )
        topologies = {
            name: topology_of(one.plugin.spec, one.plan, architecture)
            for name, one in self.prepared.items()
        }
        network = build_network(architecture, topologies, self.request.seed)
        store = WeightStore(self.settings.weights_dir)
        if base:
            network.load_owner(BACKBONE, store.get(base.backbone_digest))
        for name, reference in self.request.starts.items():
            version = self.catalog.find(reference)
            tensors = store.get(version.domain_digest)
            if anew := network.start_from(name, tensors, heads=version.domain == name):
                watcher.on_note(f"{name} begins anew where {reference} differs: {', '.join(anew)}")
        return network

    def _base(self) -> VersionRecord | None:
        if self.request.base is None:
            return None
        return self.catalog.find(self.request.base)

    def _publish(self, trainer: Trainer) -> tuple[VersionRecord, ...]:
        """Weights first, then rows; a domain that a killed run published already stays."""
        store = WeightStore(self.settings.weights_dir)
        backbone = store.put(trainer.network.owner_state(BACKBONE))
        base = self._base()
        if base and self.request.adapts and base.backbone_digest != backbone:
            raise Conflict("the frozen backbone has changed", "A fault of the program: report it.")
        known = {one.domain: one for one in self.catalog.versions.by_run(self.run_id)}
        for name, one in self.prepared.items():
            if name not in known:
                curve = trainer.curves.get(f"dice/{name}")
                metrics = {"validation": {"dice": curve[-1][1]}} if curve else {}
                device = trainer.options.device
                new = new_version(trainer.network, one, self.run_id, store, device, metrics)
                known[name] = self.catalog.versions.publish(new)
        return tuple(known[name] for name in self.request.domains)


def architecture_of(request: Request) -> Architecture:
    """The architecture that a run's mode and flags ask for."""
    return Architecture(
        name=request.architecture,
        convolutions="separable" if request.mode == "universal" else "dense",
        common_patch_zyx=PAPER_PATCH_ZYX if request.architecture == "paper" else None,
    )


def topology_of(spec: DomainSpec, plan: Plan, architecture: Architecture) -> Topology:
    """The domain's own geometry; in the paper's architecture all have the same."""
    kernels, strides = geometry_of(plan, architecture)
    return Topology(
        in_channels=len(spec.channels),
        classes=spec.classes,
        kernels_zyx=kernels,
        strides_zyx=strides,
    )


def _prepare(
    settings: Settings, catalog: Catalog, request: Request, on_prepare: OnPrepare
) -> dict[str, PreparedDomain]:
    return _each(settings, catalog, request, on_prepare, prepare_domain)


def _each(
    settings: Settings,
    catalog: Catalog,
    request: Request,
    on_prepare: OnPrepare,
    work: Callable[..., Domain],
) -> dict[str, Domain]:
    """What `plan_domain` or `prepare_domain` makes of each domain of a run."""
    plugins = {name: find_added(name, settings, catalog).working for name in request.domains}
    for name in plugins:
        catalog.domains.get(name)  # a run's domains are rows of the catalog
    return {
        name: work(
            settings.prepared_dir,
            plugin,
            data_dir_of(name, catalog, None),
            splitter(request.fold, request.learned.get(name, ())),
            request.recipe.batch_voxels,
            partial(on_prepare, name),
        )
        for name, plugin in plugins.items()
    }


def _record(
    run_id: str,
    request: Request,
    prepared: Mapping[str, PreparedDomain],
    directory: Path,
    device: str,
) -> RunRecord:
    return RunRecord(
        id=run_id,
        kind="adapt" if request.adapts else "train",
        mode=request.mode,
        domains=request.domains,
        recipe=request.recipe.model_dump(mode="json"),
        seed=request.seed,
        fold=request.fold,
        device=device,
        directory=str(directory.resolve()),
        fingerprints=fingerprints_of(prepared),
        base_version=request.base,
        starts=request.starts,
        mlflow_run_id=request.mlflow_run_id,
    )


def _parameters(request: Request) -> dict[str, object]:
    recipe = request.recipe.model_dump(mode="json")
    # Names of cases, which may be patients', stay here.
    aside = {"recipe", "plans", "plugins", "mlflow_run_id", "learned"}
    rest = request.model_dump(mode="json", exclude=aside)
    return {f"recipe/{key}": value for key, value in recipe.items()} | rest
