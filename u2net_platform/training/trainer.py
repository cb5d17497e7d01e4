"""The training loop: one batch of one domain a step, and nothing lost when it is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from u2net_platform.data.augmentation import Augmenter
from u2net_platform.data.patches import Batch, PatchSource, PatchStream, batches_ahead
from u2net_platform.data.store import PreparedCase, TrainingDomain
from u2net_platform.errors import (
    Diverged,
    IncompatibleParts,
    Interrupted,
    TooLarge,
    WorkerEnded,
)
from u2net_platform.evaluation.metrics import dice_by_class
from u2net_platform.inference.predictor import Predictor
from u2net_platform.memory import give_back_freed_memory, keep_freed_memory
from u2net_platform.model.losses import LOSSES, of_what_is_known
from u2net_platform.model.network import UniversalUNet
from u2net_platform.model.partition import BACKBONE, owned_by, owner_of, train_only
from u2net_platform.tracking.recorder import Recorder
from u2net_platform.training.acceleration import accelerate, workers_for
from u2net_platform.training.budget import TimeBudget
from u2net_platform.training.checkpoint import (
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from u2net_platform.training.interruption import signals_noted
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.schedule import schedule_of

CHECKPOINT_FILE = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 90.0
VALIDATIONS = 8
CURVE_CYCLES = 10  # a point of a loss curve is their mean
MOMENTUM = 0.99

Curves = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Options:
    """What belongs to a run beside its recipe.

    workers: processes that make batches ahead of time; None for as many as suit the device.
    owners: whose weights are trained; all others stay as they are, bit for bit.
    minutes: where given, the number of cycles is fixed after a sixteenth of them, from the speed
        until then of steps and of a validation.
    proximal: pull of the backbone towards where it began, FedProx's mu.
    validations: in a run at most, the last one at its end.
    """

    seed: int
    device: torch.device
    workers: int | None
    owners: frozenset[str]
    minutes: float | None = None
    proximal: float = 0.0
    validations: int = VALIDATIONS


@dataclass(frozen=True)
class Step:
    """One optimiser step, done. `cycles` is how many there will be, as far as is known."""

    cycle: int
    cycles: int
    domain: str
    loss: float
    seconds: float


class Watcher(Protocol):
    """Whoever wants to see a run go by."""

    def on_note(self, text: str) -> None:
        """Something that the user should know before it starts."""

    def on_step(self, step: Step) -> None: ...

    def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None:
        """Mean Dice (0..1) by domain."""


class Trainer:
    """Trains a network on its domains in `directory`, where its checkpoint lies.

    The result on the CPU depends on seed, recipe, data and the number of threads, and not on
    workers, interruptions or time; with `minutes`, also on how fast the machine is.
    """

    def __init__(
        self,
        network: UniversalUNet,
        domains: Mapping[str, TrainingDomain],
        recipe: Recipe,
        options: Options,
        directory: Path,
    ) -> None:
        self.network = network.to(options.device)
        self.domains = domains
        self.options = options
        self.curves: Curves = {}
        self.step = 0
        self._file = directory / CHECKPOINT_FILE
        self._recipe = recipe = recipe.suited_to(network.architecture.convolutions)
        self._schedule = schedule_of(recipe)
        self._loss = LOSSES[recipe.loss]
        self._parameters = train_only(network, set(options.owners))
        self._optimiser = _optimiser(recipe, [p for _, p in self._parameters], options.device)
        self._acceleration = accelerate(self.network, recipe, options.device)
        self._workers = workers_for(options.device) if options.workers is None else options.workers
        self._anchor: list[Tensor] = []
        self._clock = _Clock()
        self._notes: list[str] = []
        self._budget: TimeBudget | None = None
        self._validations: int | None = options.validations
        if options.minutes is not None:
            begin = math.ceil(batches_ahead(self._workers) / len(domains)) + 1
            self._budget = TimeBudget(options.minutes, begin)
            self._validations = None  # until the minutes have told how long the run is

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the number of cycles that was fixed."""
        return self._recipe

    def resume(self) -> None:
        """Take up the checkpoint.

        Raises:
            NothingToResume, DigestMismatch: there is none that can be read.
            IncompatibleParts: it is of a release whose checkpoints are others.
        """
        tensors, state = load_checkpoint(self._file)
        try:
            self._restore(tensors, state)
        except torch.OutOfMemoryError as error:
            raise self._no_room("the run's weights") from error
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise IncompatibleParts(
                f"{self._file} is of another release: {reason}",
                "Resume it with the release that it was begun with, or start the run anew.",
            ) from error
        self._notes = _differences(state.get("place", {}), self._place())

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(without_prefix("network", tensors))
        memory = without_prefix("optimiser", tensors)
        restore_optimiser(self._optimiser, self._parameters, memory)
        self.step = state["step"]
        self.curves = {name: [(k, v) for k, v in curve] for name, curve in state["curves"].items()}
        self._set_cycles(state["cycles"])
        self._schedule.restore(state["schedule"])
        self._clock.losses = state["losses"]
        self._validations = state.get("validations", VALIDATIONS)

    def begin_at(
        self, cycle: int, memory: Path | None = None, known: Collection[str] | None = None
    ) -> None:
        """Begin in the middle: a part of a longer run, as a round of a federation is.

        memory: the folder of the part before. Its domains' weights and what optimiser and schedule
            remember are taken over; the backbone stays as it is, and a domain that was not there
            begins anew.
        known: the domains of that part that are what they were, where not all are.

        Raises:
            NothingToResume, DigestMismatch: the part before cannot be read.
        """
        self.step = cycle * len(self.domains)
        if memory is None:
            return
        tensors, state = load_checkpoint(memory / CHECKPOINT_FILE)
        self._schedule.restore(state["schedule"])
        others = set() if known is None else {*self.domains} - {*known}
        weights, remembered = (
            {name: one for name, one in part.items() if owner_of(name) not in others}
            for part in (without_prefix("network", tensors), without_prefix("optimiser", tensors))
        )
        for name in self.domains:
            if own := owned_by(weights, name):
                self.network.load_owner(name, own)
        restore_optimiser(self._optimiser, self._parameters, remembered)

    def run(self, watcher: Watcher, recorder: Recorder, until: int | None = None) -> None:
        """Train to the end, or until a cycle.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint was written.
            TooLarge: the GPU has no room for a batch.
            WorkerEnded: a process that makes patches was killed; the last checkpoint is there.
            Diverged: the loss is not finite; the last checkpoint is from before.
            DiskFull, NotWritable: a checkpoint cannot be written; the one before is still there.
        """
        keep_freed_memory(of_any_size=True)
        self._anchor = self._backbone() if self.options.proximal else []
        for note in (*self._acceleration.notes, *self._notes):
            watcher.on_note(note)
        began = self.step
        stream = PatchStream(self._sources(), self.options.seed, self._weights())
        batches = stream.from_step(self.step, self._workers)
        try:
            with signals_noted() as stopped:
                while self.cycle != until and (rate := self._rate()) is not None:
                    self._one_step(next(batches), rate, watcher)
                    if self.step % len(self.domains) == 0:
                        self._end_cycle(watcher, recorder)
                    if stopped.name:
                        self.save()
                        raise Interrupted(
                            f"Stopped by {stopped.name} after step {self.step}; nothing is lost",
                            "Go on with --resume.",
                        )
                    if self._clock.since_checkpoint() > CHECKPOINT_SECONDS:
                        self.save()
            if self.step > began and self.step % len(self.domains):
                # The schedule has ended it within a cycle.
                self._end_cycle(watcher, recorder)
        except (RuntimeError, ConnectionError, EOFError) as error:
            # Torch notices it wherever the program just is.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise WorkerEnded(
                f"A process that makes patches has ended: {error}",
                "Go on with --resume, with --workers 0 where memory is short; `u2net doctor` looks"
                " at memory that processes share.",
            ) from error
        finally:
            del batches  # ends the workers, even where somebody keeps the exception
            give_back_freed_memory()
        self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = with_prefix("network", self.network.state_dict())
        memory = optimiser_tensors(self._optimiser, self._parameters)
        tensors |= with_prefix("optimiser", memory)
        state: dict[str, Any] = {
            "step": self.step,
            "cycles": self._recipe.cycles,
            "schedule": self._schedule.state(),
            "curves": self.curves,
            "losses": self._clock.losses,
            "validations": self._validations,
            "place": self._place(),
        }
        save_checkpoint(self._file, tensors, state)
        self._clock.saved_at = time.monotonic()

    def _place(self) -> dict[str, object]:
        """What the last bits of the weights depend on besides."""
        threads, device = torch.get_num_threads(), self.options.device.type
        return {"torch": torch.__version__, "threads": threads, "device": device}

    @property
    def cycle(self) -> int:
        """Whole cycles done."""
        return self.step // len(self.domains)

    def _rate(self) -> float | None:
        return None if self.cycle >= self._recipe.cycles else self._schedule.rate(self.cycle)

    def _sources(self) -> dict[str, PatchSource]:
        rates = self._recipe.augmentation
        return {
            name: PatchSource(
                domain.training,
                Augmenter(domain.plugin.spec.augmentation, rates, domain.plan.patch_zyx),
                domain.plan.batch_size,
                domain.plugin.spec,
            )
            for name, domain in self.domains.items()
        }

    def _weights(self) -> dict[str, float] | None:
        temperature = self._recipe.temperature
        if temperature is None:
            return None
        return {
            name: len(domain.training) ** (1 / temperature) for name, domain in self.domains.items()
        }

    def _one_step(self, batch: Batch, rate: float, watcher: Watcher) -> None:
        started = time.monotonic()
        try:
            loss = self._optimise(batch, rate)
        except torch.OutOfMemoryError as error:
            raise self._no_room(f"a batch of {batch.domain}") from error
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss of {batch.domain} is {loss} at step {self.step}",
                "Lower the learning rate, or check the data: u2net domain check.",
            )
        self._schedule.observe(loss)
        self._clock.losses.setdefault(batch.domain, []).append(loss)
        seconds = time.monotonic() - started
        watcher.on_step(Step(self.cycle, self._recipe.cycles, batch.domain, loss, seconds))
        self.step += 1

    def _no_room(self, what: str) -> TooLarge:
        return TooLarge(
            f"{self.options.device} has no room for {what}",
            "Give fewer --batch-voxels, or end other programs there.",
        )

    def _optimise(self, batch: Batch, rate: float) -> float:
        device = self.options.device
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        # Not zero but None: a domain that is not in the batch gets no step, and so no decay.
        self._optimiser.zero_grad(set_to_none=True)
        with self._acceleration.autocast():
            logits = self._acceleration.forward(batch.images.to(device), domain=batch.domain)
        hidden = None if batch.hidden is None else batch.hidden.to(device)
        loss = of_what_is_known(self._loss, logits.float(), batch.labels.to(device), hidden)
        loss.backward()  # type: ignore[no-untyped-call]
        self._pull()
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for _, p in self._parameters], self._recipe.clip_norm)
        self._optimiser.step()
        return loss.item()

    def _backbone(self) -> list[Tensor]:
        """Copies of the backbone's weights that are trained."""
        return [p.detach().clone() for n, p in self._parameters if owner_of(n) == BACKBONE]

    def _pull(self) -> None:
        """Add the gradient of mu / 2 times the squared distance from the anchor.

        Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
        """
        if self._anchor:
            shared = [p for n, p in self._parameters if owner_of(n) == BACKBONE]
            for parameter, start in zip(shared, self._anchor, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - start, alpha=self.options.proximal)

    def _end_cycle(self, watcher: Watcher, recorder: Recorder) -> None:
        validations = self._validations
        if validations is None:
            self._estimate_length(watcher, recorder)
        last = self._rate() is None
        if self.cycle % CURVE_CYCLES == 0 or last:
            losses = {f"loss/{name}": float(np.mean(v)) for name, v in self._clock.losses.items()}
            self._clock.losses = {}
            self._note(losses, recorder)
        if validations:
            due, before = (
                n * validations // self._recipe.cycles for n in (self.cycle, self.cycle - 1)
            )
            if due > before or last:
                self._note_validation(watcher, recorder)

    def _note_validation(self, watcher: Watcher, recorder: Recorder) -> None:
        dice = self.validate()
        watcher.on_validation(self.cycle, dice)
        self._note({f"dice/{name}": value for name, value in dice.items()}, recorder)

    def _estimate_length(self, watcher: Watcher, recorder: Recorder) -> None:
        """How many cycles fit into the minutes at the speed so far; fixed once that is known."""
        assert self._budget is not None
        self._budget.end_cycle()
        if self._budget.is_timed:
            self._note_validation(watcher, recorder)
            self._validations = self._budget.reserve_validations(self.options.validations)
        if (left := self._budget.cycles_left()) is not None:
            self._set_cycles(self.cycle + left)

    def _set_cycles(self, cycles: int) -> None:
        """Fix the length of the run; the schedule starts from its state before."""
        state = self._schedule.state()
        self._recipe = self._recipe.model_copy(update={"cycles": cycles})
        self._schedule = schedule_of(self._recipe)
        self._schedule.restore(state)

    def _note(self, points: dict[str, float], recorder: Recorder) -> None:
        for name, value in points.items():
            self.curves.setdefault(name, []).append((self.cycle, value))
        recorder.log_metrics(points, self.cycle)

    def validate(self) -> dict[str, float]:
        """Mean Dice (0..1) over classes and validation cases, by domain, on the plan's grid."""
        found = {}
        for name, domain in self.domains.items():
            values = [dice for case in domain.validation for dice in self._dice(domain, case)]
            if values:
                found[name] = float(np.mean(values))
        return found

    def _dice(self, domain: TrainingDomain, case: PreparedCase) -> list[float]:
        predictor = Predictor(self.network, domain.plugin, domain.plan, self.options.device)
        found = predictor.predict_prepared(case.image)
        spec = domain.plugin.spec
        dice = dice_by_class(case.labels, found, spec.classes, spec.hidden_classes(case.id))
        return list(dice.values())


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """A note, where a run goes on elsewhere than it was stopped."""
    changed = [f"{key} {old}, now {now[key]}" for key, old in before.items() if old != now[key]]
    told = f"Stopped with {'; '.join(changed)}: its weights will not be those, to the last digit,"
    return [f"{told} of a run that was not stopped."] if changed else []


@dataclass
class _Clock:
    """Times of this process, and the losses since the last point of a curve."""

    saved_at: float = field(default_factory=time.monotonic)
    losses: dict[str, list[float]] = field(default_factory=dict)

    def since_checkpoint(self) -> float:
        return time.monotonic() - self.saved_at


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter], device: torch.device) -> Optimizer:
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return SGD(parameters, recipe.learning_rate, MOMENTUM, weight_decay=decay, nesterov=True)
    kind = Adam if recipe.optimiser == "adam" else AdamW
    fused = device.type in ("cpu", "cuda")  # one pass over the weights
    return kind(parameters, recipe.learning_rate, weight_decay=decay, fused=fused)
