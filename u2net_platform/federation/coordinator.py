"""The coordinator: round after round, from the sites' answers to one backbone.

After each round the backbone, the weights of shared domains, the momentum, and which round of each
site was taken last are in one file; the catalog's rows come after it. So a run that is killed goes
on from its last round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import prod
from typing import Any, Literal, NamedTuple

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import (
    ContributionRecord,
    NewVersion,
    RoundRecord,
    RunRecord,
    VersionRecord,
)
from u2net_platform.catalog.weights import WeightStore, digest_of
from u2net_platform.data.plan import LEARNED, Plan
from u2net_platform.domains.spec import DomainSpec, PlanOverrides
from u2net_platform.errors import (
    Conflict,
    Interrupted,
    QuorumNotReached,
    UnknownDomain,
)
from u2net_platform.federation.aggregation import (
    Contribution,
    Refused,
    Weights,
    apply_update,
    check,
    mean_update,
    own_rate,
)
from u2net_platform.federation.exchange import Exchange
from u2net_platform.federation.messages import (
    DESCRIBE,
    FINISH,
    TRAIN,
    Answer,
    Ask,
    Description,
    Finish,
    Held,
    Order,
    Published,
    answer_of,
    content_of,
    pack,
    size_of,
    unpack,
)
from u2net_platform.federation.request import CHANGEABLE, how_to_resume, request_of
from u2net_platform.federation.state import State
from u2net_platform.files import exclusive
from u2net_platform.model.network import build_network
from u2net_platform.model.partition import BACKBONE, tensors_digest
from u2net_platform.model.topology import Architecture, Topology
from u2net_platform.settings import PRODUCT, Settings
from u2net_platform.tracking.mlflow_recorder import MLflowRecorder
from u2net_platform.tracking.outbox import OUTBOX_FILE, OutboxRecorder
from u2net_platform.tracking.recorder import Recorder, report_end
from u2net_platform.workflows.compatibility import faults_of
from u2net_platform.workflows.publish import stored_weights
from u2net_platform.workflows.register import keep_registered
from u2net_platform.workflows.request import LOCK_FILE, STATE_FILE
from u2net_platform.workflows.train import topology_of

LARGEST_BATCH = 4  # times the voxels of the recipe, where a site's plan declares its own


@dataclass(frozen=True)
class Federated:
    """A completed run: its versions here, and by site, those that the site has published."""

    run: RunRecord
    versions: tuple[VersionRecord, ...]
    at_sites: Mapping[str, Published]


class _Taken(NamedTuple):
    """What a site has sent for a round and may count, its row, and numbers to watch."""

    sent: Contribution
    row: ContributionRecord
    metrics: Mapping[str, float]


OnRound = Callable[[RoundRecord], None]


class Coordinator:
    """One federated run over a grid, from its first round, or from the last one that is stored."""

    def __init__(
        self,
        settings: Settings,
        run_id: str,
        grid: Grid,
        on_note: Callable[[str], None] = lambda _: None,
        on_round: OnRound = lambda _: None,
    ) -> None:
        self.request = request_of(settings, run_id)
        self._settings, self._run_id = settings, run_id
        self._on_note, self._on_round = on_note, on_round
        self._exchange = Exchange(grid, run_id, self.request, on_note)
        self._directory = settings.runs_dir / run_id
        self._catalog = Catalog.open(settings.database_url)
        self._store = WeightStore(settings.weights_dir)
        self._recipe = self.request.whole_recipe
        self._architecture = self._base_architecture()
        self._changed: set[str] = set()  # sites that hold something else than they have said

    def go(self) -> Federated:
        """Run all rounds that are left, and let every site publish its versions.

        Raises:
            QuorumNotReached: too few sites sent something usable; what was reached is kept.
            RunBusy: another process coordinates this run.
        """
        with exclusive(self._directory / LOCK_FILE):
            state = self._begin()
            recorder = self._recorder()
            try:
                while state.round < self.request.rounds:
                    self._one_round(state, recorder)
                at_sites = self._finish(state)
                versions = self._publish(state)
            except BaseException as error:
                self._end(error, state.round, recorder)
                raise
            run = self._catalog.runs.update(self._run_id, "completed", state.round)
            report_end(lambda: recorder.finish("completed"), self._on_note)
            keep_registered(self._settings, [one.domain for one in versions], self._on_note)
            return Federated(run, versions, at_sites)

    def _end(self, error: BaseException, reached: int, recorder: Recorder) -> None:
        if isinstance(error, Interrupted):
            error.hint = f"Go on with: {how_to_resume(self._run_id)}"
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | Interrupted)
        status: Literal["interrupted", "failed"] = "interrupted" if stopped else "failed"
        report_end(lambda: self._catalog.runs.update(self._run_id, status, reached), self._on_note)
        report_end(lambda: recorder.finish(status), self._on_note)

    # Beginning

    def _begin(self) -> State:
        file = self._directory / STATE_FILE
        if file.exists():
            state = State.load(file)
            for one in state.last:  # killed between the file and its rows
                self._catalog.federations.end_round(one)
            self._catalog.runs.update(self._run_id, "running", state.round)
            return state
        held, reasons = self._describe(self._exchange.present(1), {})
        if len(held) < self.request.quorum:
            why = ", ".join(f"{site}: {reasons.get(site, 'Absent')}" for site in self.request.sites
                            if site not in held)  # fmt: skip
            raise QuorumNotReached(
                f"{len(held)} of {len(self.request.sites)} sites say what they hold, and "
                f"{self.request.quorum} are needed ({why})",
                "See that they run, and faults.log in their folders (of OtherSpec, what was said"
                f" before); then: {how_to_resume(self._run_id)}",
            )
        state = State({BACKBONE: self._first_backbone()})
        self._welcome(state, held)
        try:
            self._catalog.runs.create(self._record(held))
        except Conflict:
            self._catalog.runs.update(self._run_id, "running", 0)
        state.save(file)
        return state

    def _describe(
        self, nodes: Mapping[str, int], shared: Mapping[str, Held]
    ) -> tuple[dict[str, Description], dict[str, str]]:
        """What sites hold; of those that cannot say so, or mean something else by a domain that is
        shared, why."""
        ask = Ask(
            run=self._run_id,
            release=version(PRODUCT),
            fold=self.request.fold,
            batch_voxels=self._recipe.batch_voxels,
        )
        answers = self._exchange.ask(nodes, DESCRIBE, {site: pack(ask) for site in nodes})
        found, reasons = {}, dict.fromkeys(nodes.keys() - answers.keys(), "NoReply")
        for site, message in answers.items():
            try:
                held, _ = unpack(Description, content_of(message))
                _check_domains(held, self._architecture, self._recipe.batch_voxels)
            except Refused as refused:
                reasons[site] = refused.reason
                self._on_note(f"{site} cannot say what it holds: {refused.reason}")
            else:
                found[site] = held
        used = {**_shared(found), **self._own_domains, **shared}
        for site, other in _other_meanings(found, used).items():
            del found[site]
            reasons[site] = "OtherSpec"
            self._on_note(f"{site} is left out, by OtherSpec: {other}")
        return found, reasons

    @cached_property
    def _own_domains(self) -> dict[str, Held]:
        """What is a domain here already: a site's of that name, whose version would be the newest,
        has to mean the same."""
        return {
            one.name: Held(spec=one.spec, plugin_digest=one.plugin_digest, examples=1, plan=None)
            for one in self._catalog.domains.list()
            if one.source != "federation"
        }

    def _first_backbone(self) -> dict[str, Tensor]:
        if self.request.base:
            return self._store.get(self._catalog.find(self.request.base).backbone_digest)
        return build_network(self._architecture, {}, self.request.seed).owner_state(BACKBONE)

    def _topologies(self, plans: Mapping[str, Held]) -> dict[str, Topology]:
        return {
            name: topology_of(
                DomainSpec.parse(one.spec, f"the spec of {name}"),
                Plan.model_validate(one.plan),
                self._architecture,
            )
            for name, one in plans.items()
        }

    def _base_architecture(self) -> Architecture:
        if self.request.base is None:
            return Architecture()
        return Architecture.model_validate(
            self._catalog.find(self.request.base).backbone_architecture
        )

    def _add_domains(self, held: Mapping[str, Description]) -> None:
        """A run's domains are rows of the catalog, also where their data is elsewhere."""
        for description in held.values():
            for name, one in description.domains.items():
                try:
                    self._catalog.domains.get(name)
                except UnknownDomain:
                    self._catalog.domains.add(one.spec, name, one.plugin_digest, "federation")

    def _record(self, held: Mapping[str, Description]) -> RunRecord:
        return RunRecord(
            id=self._run_id,
            kind="federate",
            mode="universal",
            domains=tuple(sorted({name for one in held.values() for name in one.domains})),
            recipe=self._recipe.model_dump(mode="json"),
            seed=self.request.seed,
            fold=self.request.fold,
            device="sites",
            directory=str(self._directory.resolve()),
            base_version=self.request.base and self._catalog.find(self.request.base).reference,
        )

    def _recorder(self) -> Recorder:
        recorder = OutboxRecorder(
            self._directory / OUTBOX_FILE,
            lambda: MLflowRecorder(self._settings, self._run_id),
            self._on_note,
        )
        # MLflow's parameters are final.
        chosen = self.request.model_dump(mode="json", exclude={"recipe", *CHANGEABLE})
        recipe = self._recipe.model_dump(mode="json")
        recorder.log_params({f"recipe/{key}": value for key, value in recipe.items()} | chosen)
        return recorder

    # A round

    def _one_round(self, state: State, recorder: Recorder) -> None:
        """Ask all sites that are there; below the quorum ask those again whose answer is missing.

        Raises:
            QuorumNotReached: at the last attempt.
        """
        number, done = state.round + 1, []
        before = [
            one.attempt
            for one in self._catalog.federations.rounds(self._run_id)
            if one.number == number
        ]
        first = max(before, default=0) + 1  # a resume adds to what was tried, and replaces nothing
        last = first + self.request.attempts - 1
        taken: dict[str, _Taken] = {}
        for attempt in range(first, last + 1):
            started = time.monotonic()
            rows = self._ask(state, number, taken)
            enough = len(taken) >= self.request.quorum
            done.append(
                RoundRecord(
                    run_id=self._run_id,
                    number=number,
                    attempt=attempt,
                    status="completed" if enough else "failed" if attempt == last else "repeated",
                    backbone_digest=self._move(state, [one.sent for one in taken.values()])
                    if enough
                    else None,
                    seconds=time.monotonic() - started,
                    contributions=tuple(rows),
                )
            )
            if enough:
                break
            self._catalog.federations.end_round(done[-1])
            self._on_round(done[-1])
        else:
            reasons = ", ".join(f"{one.site}: {one.reason or 'sound'}" for one in rows)
            raise QuorumNotReached(
                f"Round {number} has {len(taken)} contributions after {len(done)} attempts, and "
                f"{self.request.quorum} are needed ({reasons})",
                f"See the sites' faults.log; then: {how_to_resume(self._run_id)}",
            )
        state.round, state.last = number, done
        state.confirmed |= dict.fromkeys(taken, number)
        state.save(self._directory / STATE_FILE)
        self._catalog.federations.end_round(done[-1])
        self._catalog.runs.update(self._run_id, "running", number)
        watched = {
            f"{name}/{site}": value
            for site, one in taken.items()
            for name, value in one.metrics.items()
        }
        recorder.log_metrics(_curves(done[-1], watched), number)
        self._on_round(done[-1])

    def _ask(self, state: State, number: int, taken: dict[str, _Taken]) -> list[ContributionRecord]:
        """One attempt: add to what was taken of other sites; returns a row for every site."""
        nodes = self._exchange.present(number)
        nodes = {site: node for site, node in nodes.items() if site not in taken}
        reasons: dict[str, str] = {}
        known = state.held.keys() - self._changed
        if new := {site: node for site, node in nodes.items() if site not in known}:
            described, reasons = self._describe(new, state.shared)
            self._welcome(state, described)
            self._changed -= described.keys()
            known |= described.keys()
        nodes = {site: node for site, node in nodes.items() if site in known}
        orders = {site: self._order(state, site, number) for site in nodes}
        started = time.monotonic()
        answers = self._exchange.ask(nodes, TRAIN, orders)
        seconds = time.monotonic() - started
        rows = []
        held: dict[str, Description] = {}
        for site in self.request.sites:
            if site in taken:
                rows.append(taken[site].row)
                continue
            row: dict[str, Any] = {"site": site, "seconds": seconds}
            try:
                if site not in nodes:
                    raise Refused(reasons.get(site, "Absent"))
                row["bytes_down"] = size_of(orders[site])
                # Popped, so that its memory goes with it.
                answer = self._judged(state, site, answers.pop(site, None), row)
            except Refused as refused:
                if refused.reason in ("WrongKeys", "OtherSpec"):
                    self._changed.add(site)
                rows.append(ContributionRecord(**row, accepted=False, reason=refused.reason))
            else:
                one = answer.contribution
                row |= {"examples": one.examples, "steps": one.steps, "norm": one.norm}
                rows.append(ContributionRecord(**row, accepted=True))
                taken[site] = _Taken(one, rows[-1], answer.metrics)
                held[site] = answer.held
        self._welcome(state, held)
        return rows

    def _judged(
        self, state: State, site: str, message: Message | None, row: dict[str, Any]
    ) -> Answer:
        """A site's answer, if it may count; its size goes into the row in any case.

        Raises:
            Refused: it may not.
        """
        if message is None:
            raise Refused("NoReply")
        if message.has_content():
            row["bytes_up"] = size_of(message.content)
        answer = answer_of(site, message)
        one = answer.contribution
        check(one, self._answerable(state, site), self.request.rules)
        _check_domains(answer.held, self._architecture, self._recipe.batch_voxels)
        if _other_meanings({site: answer.held}, {**self._own_domains, **state.shared}):
            raise Refused("OtherSpec")
        if one.steps > self.request.cycles * len(answer.held.domains):
            raise Refused("WrongWeight")
        return answer

    def _order(self, state: State, site: str, number: int) -> RecordDict:
        confirmed = state.confirmed.get(site, 0)
        order = Order(round=number, confirmed=confirmed, **self._terms(state, site))
        return pack(order, self._answerable(state, site))

    def _terms(self, state: State, site: str) -> dict[str, Any]:
        return {
            "run": self._run_id,
            "release": version(PRODUCT),
            "cycles": self.request.cycles,
            "recipe": self._recipe,
            "architecture": self._architecture.model_dump(mode="json"),
            "seed": self.request.seed,
            "fold": self.request.fold,
            "proximal": self.request.proximal,
            # Not those of others' domains: a plan may tell of their scans.
            "plans": {name: state.shared[name].plan for name in self._shared_by(state, site)},
            "seconds": self.request.round_minutes * 60,
        }

    def _answerable(self, state: State, site: str) -> dict[str, Weights]:
        """The weights that a site is given, and sends updates of."""
        owners = {BACKBONE, *self._shared_by(state, site)}
        return {owner: w for owner, w in state.weights.items() if owner in owners}

    def _shared_by(self, state: State, site: str) -> set[str]:
        """The shared domains that a site holds."""
        domains = state.held[site].domains
        return {name for name, one in domains.items() if one.plan is not None} & {*state.shared}

    def _welcome(self, state: State, held: Mapping[str, Description]) -> None:
        """Take note of what sites hold; a domain that is shared begins here."""
        state.held |= held
        self._add_domains(held)
        # The plan of the site with most cases; from then on it stays.
        fresh = {n: one for n, one in _shared(state.held).items() if n not in state.shared}
        network = build_network(self._architecture, self._topologies(fresh), self.request.seed)
        state.weights |= {name: network.owner_state(name) for name in fresh}
        state.shared |= fresh

    def _move(self, state: State, taken: Sequence[Contribution]) -> str:
        """Let the contributions change the weights; returns the digest of the backbone."""
        rules = self.request.rules
        for owner, weights in state.weights.items():
            update = mean_update(owner, taken, rules)
            if update is None:
                continue
            decay, rate = 0.0, 1.0  # the changes of one domain at several sites agree
            if owner == BACKBONE:
                held = [state.held[one.site].domains for one in taken]
                decay, rate = rules.server_momentum, rules.server_rate or own_rate(held)
            state.weights[owner], kept = apply_update(
                weights, update, state.momentum.get(owner), decay, rate
            )
            if decay:
                state.momentum[owner] = kept
        return digest_of(state.weights[BACKBONE])

    # The end

    def _finish(self, state: State) -> dict[str, Published]:
        """Let every site publish; one that does not answer now can be asked again by a resume."""
        nodes = self._exchange.present(state.round)
        sites = self._catalog.federations.sites(self._run_id)
        orders = {
            site: pack(
                Finish(
                    round=max(state.round, 1),
                    confirmed=state.confirmed.get(site, 0),
                    sites=sites,
                    **self._terms(state, site),
                ),
                self._answerable(state, site),
            )
            for site in nodes
            if site in state.held
        }
        found, answers = {}, self._exchange.ask(nodes, FINISH, orders)
        for site in sorted({*state.confirmed, *answers}):
            try:
                if site not in answers:
                    raise Refused("NoReply" if site in nodes else "Absent")
                found[site], _ = unpack(Published, content_of(answers[site]))
            except Refused as refused:
                self._on_note(
                    f"{site} has published nothing: {refused.reason}; to ask it again: "
                    + how_to_resume(self._run_id)
                )
        return found

    def _publish(self, state: State) -> tuple[VersionRecord, ...]:
        """Versions of shared domains; the others belong to the sites and are in their catalogs."""
        plans = state.shared
        network = build_network(self._architecture, self._topologies(plans), self.request.seed)
        digests = {name: tensors_digest(network.owner_state(name)) for name in plans}
        for owner, weights in state.weights.items():
            network.load_owner(owner, weights)
        known = {one.domain: one for one in self._catalog.versions.by_run(self._run_id)}
        sites = self._catalog.federations.sites(self._run_id)
        for name, one in plans.items():
            if name in known:
                continue
            if tensors_digest(state.weights[name]) == digests[name]:  # as it began
                self._on_note(f"{name} is not published: no round with it was taken")
                continue
            assert one.plan is not None  # of a shared domain
            new = NewVersion(
                **stored_weights(network, name, self._store),
                spec=one.spec,
                plugin_digest=one.plugin_digest,
                plan=one.plan,
                run_id=self._run_id,
                metrics={"federation": {"sites": sites}},
            )
            known[name] = self._catalog.versions.publish(new)
        return tuple(known[name] for name in plans if name in known)


def _check_domains(held: Description, architecture: Architecture, batch_voxels: int) -> None:
    """What a site says of its domains goes into the catalog, so it has to be what a plugin says;
    and its plan is what other sites work by, so it must not ask for more than the run does.

    Raises:
        Refused: BadSpec.
    """
    try:
        for name, one in held.domains.items():
            spec = DomainSpec.parse(one.spec, name)
            if spec.name != name:
                raise Refused("BadSpec")
            if one.plan is None:
                continue
            plan = Plan.model_validate(one.plan)
            PlanOverrides.model_validate(plan.model_dump(include=set(PlanOverrides.model_fields)))
            if plan.batch_size * prod(plan.patch_zyx) > LARGEST_BATCH * batch_voxels:
                raise Refused("BadSpec")
            if any(faults_of(spec, plan, topology_of(spec, plan, architecture), architecture)):
                raise Refused("BadSpec")
            if any(getattr(plan, name) for name in LEARNED):  # of a version that was trained
                raise Refused("BadSpec")
    except Refused:
        raise
    except Exception as error:  # a pattern may overflow, brackets may be nested too deeply
        raise Refused("BadSpec") from error


def _other_meanings(found: Mapping[str, Description], shared: Mapping[str, Held]) -> dict[str, str]:
    """Sites that share a domain whose weights would fit those of others, and mean something else
    than in the spec that is used: with what differs."""

    def meaning(one: Held) -> dict[str, object]:
        spec = DomainSpec.parse(one.spec, "a site's spec")
        parts = ("modality", "channels", "intensity", "geometry")
        return {"classes": spec.class_names, **{part: getattr(spec, part) for part in parts}}

    others = {}
    for site, held in found.items():
        for name, one in held.domains.items():
            if one.plan is None or name not in shared:
                continue
            own, used = meaning(one), meaning(shared[name])
            if differ := [part for part in own if own[part] != used[part]]:
                others[site] = f"its {name} has other {', '.join(differ)} than the one in use"
    return others


def _shared(held: Mapping[str, Description]) -> dict[str, Held]:
    """Domains whose weights are averaged: each as the site with most cases has it."""
    found: dict[str, Held] = {}
    for site in sorted(held):
        for name, one in held[site].domains.items():
            better = name not in found or one.examples > found[name].examples
            if one.plan is not None and better:
                found[name] = one
    return dict(sorted(found.items()))


def _curves(done: RoundRecord, metrics: Mapping[str, float]) -> dict[str, float]:
    def rows() -> Iterator[tuple[str, float]]:
        for one in done.contributions:
            yield f"accepted/{one.site}", float(one.accepted)
            yield f"bytes_up/{one.site}", float(one.bytes_up)
            yield f"bytes_down/{one.site}", float(one.bytes_down)
            if one.norm is not None:
                yield f"norm/{one.site}", one.norm

    return {"seconds": done.seconds, **dict(rows()), **metrics}
