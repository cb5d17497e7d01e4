"""A site: its folder, its domains, and what it does when the coordinator asks.

A folder holds `site.toml`, the keys, `audit.jsonl`, the site's own home (catalog, prepared cases,
weights) and, for each run, what it keeps between two rounds. A domain's own weights lie there and
nowhere else, unless `site.toml` shares them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RunRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.plan import Plan
from u2net_platform.data.splits import splitter
from u2net_platform.data.store import note_use
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.errors import (
    Conflict,
    IncompatibleParts,
    InvalidSite,
    OtherRelease,
    RoundTooLong,
    StateLost,
    UnknownDomain,
)
from u2net_platform.federation.aggregation import Weights, norm_of
from u2net_platform.federation.journal import audit
from u2net_platform.federation.messages import (
    Ask,
    Description,
    Finish,
    Held,
    Order,
    Published,
    Terms,
    Told,
)
from u2net_platform.federation.privacy import Privacy
from u2net_platform.federation.site_config import SITE_FILE, SiteConfig
from u2net_platform.files import exclusive, write_text
from u2net_platform.inference.device import choose_device
from u2net_platform.model.network import UniversalUNet, build_network
from u2net_platform.model.partition import BACKBONE, owned_by, owner_of, tensors_digest
from u2net_platform.model.topology import Architecture
from u2net_platform.settings import PRODUCT, Settings
from u2net_platform.tracking.recorder import NullRecorder
from u2net_platform.training.checkpoint import load_checkpoint, without_prefix
from u2net_platform.training.trainer import (
    CHECKPOINT_FILE,
    Options,
    Step,
    Trainer,
)
from u2net_platform.workflows.add_domain import add_domain, find_added
from u2net_platform.workflows.prepare import PreparedDomain, fingerprints_of, prepare_domain
from u2net_platform.workflows.publish import new_version
from u2net_platform.workflows.request import LOCK_FILE
from u2net_platform.workflows.train import topology_of

DATA_FILE = "data.json"  # what domains were like, when they joined a run or were adapted


@dataclass(frozen=True)
class Sent:
    """What leaves a site after a round: what it holds, updates by owner, and numbers."""

    held: Description
    updates: dict[str, dict[str, Tensor]]
    examples: int
    steps: int
    metrics: dict[str, float]


class Site:
    """A site's folder at work. Every method may raise U2NetError; its text must not leave."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.config = SiteConfig.load(self.directory)
        # Its own, whatever the environment says of the coordinator's.
        self.settings = Settings(
            home=self.directory / "home",
            plugins=self.path(self.config.plugins) if self.config.plugins else None,
            catalog_url=None,
            tracking_uri=None,
        )
        self.privacy = Privacy(self.config.privacy, self.directory / "privacy.json")
        self._prepared: dict[tuple[object, ...], PreparedDomain] = {}

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog.open(self.settings.database_url)

    def describe(self, ask: Ask) -> Description:
        """The site's domains; a plan only of those whose weights it shares.

        Raises:
            OtherRelease: the coordinator's program is another than the site's.
        """
        _require_release(ask)
        found = self._description(self._prepare(ask.fold, ask.batch_voxels, {}))
        self._audit(ask.run, 0, "described", _told(found))
        return found

    def train(self, order: Order, given: Mapping[str, Weights]) -> Sent:
        """Train a round from the weights that were given, and say what it adds to them.

        A domain's own weights are kept as pending: the next order tells whether they count.

        Raises:
            OtherRelease: as `describe`.
            StateLost: what the confirmed round left is gone.
            RoundTooLong: the time of the round is up.
            BudgetSpent: one more round is more privacy than the site allows.
            IncompatibleParts: the site's data or plugins have changed since the run began.
            RunBusy: an earlier order of this run is still at work, as Flower stops no client.
        """
        _require_release(order)
        with exclusive(self._run_dir(order.run) / LOCK_FILE):
            return self._train(order, given)

    def _train(self, order: Order, given: Mapping[str, Weights]) -> Sent:
        until = time.monotonic() + order.seconds
        self.privacy.require_room()
        given = self._mine_left_out(given)
        held = self._prepare(order.fold, order.recipe.batch_voxels, order.plans)
        self._require_same_data(order.run, held)
        prepared = {name: one for name, one in held.items() if not self._waits(name, given)} or held
        before = self._kept(order.run, order.confirmed)
        network = self._network(order, given, prepared)
        shared = given.keys() & prepared.keys()
        for name in shared:
            network.load_owner(name, dict(given[name]))
        adapted = self._adapt_new(order, given, network, prepared, before, until)
        target = self._round_dir(order.run, order.round)
        shutil.rmtree(target, ignore_errors=True)
        owners = frozenset({BACKBONE, *prepared})
        trainer = self._trainer(order, network, prepared, owners, target)
        known = _domains_in(before, prepared) if before else None
        trainer.begin_at((order.round - 1) * order.cycles, before, known)
        for name in shared - adapted:
            network.load_owner(name, dict(given[name]))  # a shared domain is the coordinator's
        watch = _Watch(until)
        trainer.run(watch, NullRecorder(), until=order.round * order.cycles)
        write_text(target / DATA_FILE, json.dumps(_plans(prepared)))
        self._forget_rounds(order.run, {order.confirmed, order.round})
        return self._sent(order, given, network, prepared, watch, self._description(held))

    def _shares(self, name: str) -> bool:
        return self.config.domains[name].weights == "average"

    def _mine_left_out(self, given: Mapping[str, Weights]) -> dict[str, Weights]:
        """Of what the coordinator sends, what it may say: never a domain's own weights, whose first
        and last layers it could choose so that the update shows the images."""
        shared = {name for name in self.config.domains if self._shares(name)}
        return {owner: one for owner, one in given.items() if owner in {BACKBONE, *shared}}

    def _waits(self, name: str, given: Mapping[str, Weights]) -> bool:
        """Whether a domain's first weights have yet to come from the coordinator, which hears of it
        by the answer to this order."""
        return self._shares(name) and name not in given

    def finish(self, finish: Finish, given: Mapping[str, Weights]) -> Published:
        """Publish the site's domains on the final backbone, in the site's own catalog."""
        _require_release(finish)
        given = self._mine_left_out(given)
        before = self._kept(finish.run, finish.confirmed)
        held = self._prepare(finish.fold, finish.recipe.batch_voxels, finish.plans)
        trained = _domains_in(before, held) if before else set()
        prepared = {name: one for name, one in held.items() if name in trained}
        self._require_same_data(finish.run, prepared)
        if not prepared:
            return Published(versions={}, dice={})  # nothing of this site was ever taken
        network = self._network(finish, given, prepared)
        trainer = self._trainer(
            finish, network, prepared, frozenset(), self._round_dir(finish.run, finish.round)
        )
        trainer.begin_at(finish.recipe.cycles, before)
        for name in given.keys() & prepared.keys():
            network.load_owner(name, dict(given[name]))
        dice = trainer.validate()
        versions = self._publish(finish, network, prepared, dice)
        self._audit(finish.run, finish.round, "finished", {"versions": versions, "dice": dice})
        return Published(versions=versions, dice=dice)

    def _sent(
        self,
        order: Order,
        given: Mapping[str, Weights],
        network: UniversalUNet,
        prepared: Mapping[str, PreparedDomain],
        watch: _Watch,
        description: Description,
    ) -> Sent:
        shared = {name for name in prepared if self._shares(name)}
        raw = {
            owner: {name: tensor - given[owner][name] for name, tensor in weights.items()}
            for owner in (BACKBONE, *sorted(shared & given.keys()))
            for weights in [{k: v.cpu() for k, v in network.owner_state(owner).items()}]
        }
        updates = self.privacy.protect(raw)
        metrics = {f"loss/{name}": sum(v) / len(v) for name, v in watch.losses.items()}
        epsilon = self.privacy.epsilon()
        if epsilon is not None:
            metrics["epsilon"] = epsilon
        leaving = {
            owner: {
                "sha256": tensors_digest(update),
                "norm": norm_of(update),
                "bytes": sum(tensor.nbytes for tensor in update.values()),
            }
            for owner, update in updates.items()
        }
        counts = {
            "examples": sum(len(one.training) for one in prepared.values()),
            "steps": order.cycles * len(prepared),
        }
        numbers = metrics | counts
        told = _told(description) | {"updates": leaving, "numbers": numbers}
        self._audit(order.run, order.round, "sent", told)
        return Sent(description, updates, metrics=metrics, **counts)

    def _description(self, prepared: Mapping[str, PreparedDomain]) -> Description:
        held = {}
        for name, one in prepared.items():
            held[name] = Held(
                spec=one.plugin.spec.document(),
                plugin_digest=one.plugin.digest,
                examples=len(one.training),
                plan=one.plan.model_dump(mode="json") if self._shares(name) else None,
            )
        return Description(domains=held)

    def _prepare(
        self, fold: int | None, batch_voxels: int, plans: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, PreparedDomain]:
        if not self.config.domains:
            raise InvalidSite(f"{self.config.name} has no domain", "Add [domains.NAME] to it.")
        found = {}
        for name, one in sorted(self.config.domains.items()):
            data = self.path(one.data)
            shared = self._shares(name) and name in plans
            plan = Plan.model_validate(plans[name]) if shared else None
            key = (name, fold, batch_voxels, plan.digest if plan else None)
            if key not in self._prepared:
                self._add(name, data)
                self._prepared[key] = prepare_domain(
                    self.settings.prepared_dir,
                    find_added(name, self.settings, self.catalog).working,
                    data,
                    splitter(fold),
                    batch_voxels,
                    lambda _: None,
                    plan,
                )
            found[name] = self._prepared[key]
            for case in (*found[name].training, *found[name].validation):
                note_use(case.directory)
        return found

    def _require_same_data(self, run: str, prepared: Mapping[str, PreparedDomain]) -> None:
        """A run's cases stay in the part of the split that they had when their domain joined it:
        else some would be tested that trained."""
        file = self._run_dir(run) / DATA_FILE
        known = _noted(file)
        data = fingerprints_of(prepared)
        found = {
            name: {"plugin": one.plugin.digest, "data": data[name]}
            for name, one in prepared.items()
        }
        if changed := sorted(name for name in found.keys() & known if found[name] != known[name]):
            raise IncompatibleParts(
                f"data or plugin of {', '.join(changed)} have changed since {run} began",
                "Put them back as they were; what is new is for the next run.",
            )
        if found.keys() - known:
            write_text(file, json.dumps({**known, **found}))

    def _add(self, name: str, data: Path) -> None:
        try:
            known = self.catalog.domains.get(name).data_dir
        except UnknownDomain:
            known = None
        if known != str(data.resolve()):
            add_domain(find_plugin(name, self.settings), self.catalog, data)

    def _network(
        self, order: Terms, given: Mapping[str, Weights], prepared: Mapping[str, PreparedDomain]
    ) -> UniversalUNet:
        architecture = Architecture.model_validate(order.architecture)
        topologies = {
            name: topology_of(one.plugin.spec, one.plan, architecture)
            for name, one in prepared.items()
        }
        network = build_network(architecture, topologies, order.seed)
        network.load_owner(BACKBONE, dict(given[BACKBONE]))
        return network

    def _trainer(
        self,
        order: Terms,
        network: UniversalUNet,
        prepared: Mapping[str, PreparedDomain],
        owners: frozenset[str],
        directory: Path,
    ) -> Trainer:
        options = Options(
            seed=order.seed,
            device=choose_device(self.config.device),
            workers=self.config.workers,
            owners=owners or frozenset(prepared),
            proximal=order.proximal,
            validations=0,  # they would take of the round's time; the end of the run has one
        )
        return Trainer(network, prepared, order.recipe, options, directory)

    def _adapt_new(
        self,
        order: Order,
        given: Mapping[str, Weights],
        network: UniversalUNet,
        prepared: Mapping[str, PreparedDomain],
        before: Path | None,
        until: float,
    ) -> set[str]:
        """A domain that joins later learns on the frozen backbone first, for as long as a round.

        Only then do its gradients reach the backbone. Returns which have.
        """
        if order.round == 1:
            return set()
        kept = _domains_in(before, prepared) if before else set()
        new = {name: one for name, one in prepared.items() if name not in kept}
        if not new:
            shutil.rmtree(self._run_dir(order.run) / "adapted", ignore_errors=True)
            return set()
        adapted = self._run_dir(order.run) / "adapted"
        # An order that was begun before, and whose time ran out after this, need not begin anew,
        # unless others have trained the domain meanwhile.
        plans = _plans(new)
        if given.keys() & new.keys() or _noted(adapted / DATA_FILE) != plans:
            directory = self._run_dir(order.run) / "adapting"
            shutil.rmtree(directory, ignore_errors=True)
            trainer = self._trainer(order, network, new, frozenset(new), directory)
            trainer.begin_at((order.round - 1) * order.cycles)
            trainer.run(_Watch(until), NullRecorder(), until=order.round * order.cycles)
            write_text(directory / DATA_FILE, json.dumps(plans))
            shutil.rmtree(adapted, ignore_errors=True)
            directory.rename(adapted)
            self._audit(order.run, order.round, "adapted", {"domains": sorted(new)})
        tensors, _ = load_checkpoint(adapted / CHECKPOINT_FILE)
        for name in new:
            network.load_owner(name, owned_by(without_prefix("network", tensors), name))
        return set(new)

    def _kept(self, run: str, confirmed: int) -> Path | None:
        """What the confirmed round left; None before the first."""
        if confirmed == 0:
            return None
        directory = self._round_dir(run, confirmed)
        if not (directory / CHECKPOINT_FILE).exists():
            raise StateLost(
                f"{directory} is gone: the weights of this site's domains were there",
                "Restore the site's folder from a backup, or start a new run.",
            )
        return directory

    def _forget_rounds(self, run: str, needed: set[int]) -> None:
        keep = {self._round_dir(run, number).name for number in needed}
        for directory in self._run_dir(run).glob("round-*"):
            if directory.name not in keep:
                shutil.rmtree(directory, ignore_errors=True)

    def _publish(
        self,
        finish: Finish,
        network: UniversalUNet,
        prepared: Mapping[str, PreparedDomain],
        dice: Mapping[str, float],
    ) -> dict[str, str]:
        directory = self._run_dir(finish.run)
        with suppress(Conflict):  # it was asked before
            self.catalog.runs.create(_run_record(finish, prepared, directory, self.config.device))
        store, device = WeightStore(self.settings.weights_dir), choose_device(self.config.device)
        known = {one.domain: one for one in self.catalog.versions.by_run(finish.run)}
        for name, one in prepared.items():
            if name in known:
                continue
            metrics: dict[str, Any] = {"federation": {"sites": finish.sites}}
            if name in dice:
                metrics["validation"] = {"dice": dice[name]}
            new = new_version(network, one, finish.run, store, device, metrics)
            known[name] = self.catalog.versions.publish(new)
        self.catalog.runs.update(finish.run, "completed", finish.recipe.cycles * len(prepared))
        return {name: known[name].reference for name in prepared}

    def path(self, path: Path) -> Path:
        """As `site.toml` means it: from the site's folder on."""
        return path if path.is_absolute() else self.directory / path

    def _run_dir(self, run: str) -> Path:
        return self.directory / "state" / run

    def _round_dir(self, run: str, number: int) -> Path:
        return self._run_dir(run) / f"round-{number:05d}"

    def _audit(self, run: str, number: int, what: str, details: Mapping[str, Any]) -> None:
        audit(self.directory, what, {"run": run, "round": number, **details})


def _require_release(told: Told) -> None:
    if told.release != (own := version(PRODUCT)):
        raise OtherRelease(
            f"The coordinator has release {told.release}, and this site has {own}",
            "Install the same at all sites and at the coordinator.",
        )


def _told(held: Description) -> dict[str, Any]:
    """What a description tells of the site, for the audit log."""
    domains = {
        name: {"examples": one.examples, "plugin": one.plugin_digest, "plan": one.plan is not None}
        for name, one in held.domains.items()
    }
    return {"domains": domains}


def site_at(directory: Path) -> Site:
    """The site of a folder; the same until its site.toml changes, as preparing takes long."""
    try:
        text = (directory / SITE_FILE).read_bytes()
    except OSError:
        text = b""  # Site says what is wrong
    return _cached_site(directory.resolve(), text)


@cache
def _cached_site(directory: Path, text: bytes) -> Site:  # noqa: ARG001
    return Site(directory)


def _noted(file: Path) -> dict[str, Any]:
    """By domain; empty where there is no such file."""
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _plans(prepared: Mapping[str, PreparedDomain]) -> dict[str, str]:
    return {name: one.plan.digest for name, one in prepared.items()}


def _domains_in(kept: Path, prepared: Mapping[str, PreparedDomain]) -> set[str]:
    """The domains whose weights a round has left, and made for the plan that they have now: one
    that is shared, or no longer, may have got another, for which these are not."""
    tensors, _ = load_checkpoint(kept / CHECKPOINT_FILE)
    now = _plans(prepared)
    then = now | _noted(kept / DATA_FILE)  # what a release before this one left is taken as it is
    owners = {owner_of(name) for name in without_prefix("network", tensors)}
    return {name for name in owners & now.keys() if then[name] == now[name]}


@dataclass
class _Watch:
    """Keeps losses, and ends a round whose time is up: nobody stops a site that trains."""

    until: float
    losses: dict[str, list[float]] = field(default_factory=dict)

    def on_note(self, text: str) -> None: ...

    def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None: ...

    def on_step(self, step: Step) -> None:
        self.losses.setdefault(step.domain, []).append(step.loss)
        if time.monotonic() > self.until:
            raise RoundTooLong("The time of this round is up", "Give it more: --round-minutes.")


def _run_record(
    finish: Finish, prepared: Mapping[str, PreparedDomain], directory: Path, device: str
) -> RunRecord:
    return RunRecord(
        id=finish.run,
        kind="federate",
        mode="universal",
        domains=tuple(prepared),
        recipe=finish.recipe.model_dump(mode="json"),
        seed=finish.seed,
        fold=finish.fold,
        device=device,
        directory=str(directory),
        fingerprints=fingerprints_of(prepared),
    )
