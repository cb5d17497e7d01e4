"""The loop: what it changes, what it leaves, and that a stop costs nothing."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from u2net_platform.data.store import TrainingDomain
from u2net_platform.errors import (
    Diverged,
    IncompatibleParts,
    Interrupted,
    NothingToResume,
    TooLarge,
    WorkerEnded,
)
from u2net_platform.model.partition import tensors_digest
from u2net_platform.tracking.recorder import NullRecorder
from u2net_platform.training import budget
from u2net_platform.training import trainer as module
from u2net_platform.training.checkpoint import load_checkpoint, save_checkpoint
from u2net_platform.training.trainer import Step, Trainer

if TYPE_CHECKING:
    from pathlib import Path

MakeTrainer = Callable[..., Trainer]
Digest = Callable[[Trainer], str]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    make_trainer: MakeTrainer, digest: Digest, spectator: Any
) -> None:
    found = []
    for seed in (0, 0, 1):
        trainer = make_trainer(seed=seed, cycles=2)
        trainer.run(spectator(), NullRecorder())
        found.append(digest(trainer))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("steps", [3, 4])  # in the middle of a cycle, and at its end
def test_a_run_that_was_stopped_reaches_the_weights_of_one_that_was_not(
    number: signal.Signals,
    steps: int,
    make_trainer: MakeTrainer,
    digest: Digest,
    spectator: Any,
) -> None:
    whole = make_trainer("whole")
    whole.run(spectator(), NullRecorder())

    def stop(step: Step) -> None:
        if len(first.steps) == steps:
            os.kill(os.getpid(), number)

    first = spectator(after_step=stop)
    with pytest.raises(Interrupted, match=number.name):
        make_trainer("stopped").run(first, NullRecorder())
    assert len(first.steps) == steps
    resumed = make_trainer("stopped", seed=0)
    resumed.network.load_state_dict(make_trainer(seed=9).network.state_dict())
    resumed.resume()
    second = spectator()
    resumed.run(second, NullRecorder())
    assert len(second.steps) == 8 - steps
    assert digest(resumed) == digest(whole)
    assert resumed.curves == whole.curves


@pytest.mark.parametrize(
    "changed",
    [
        {"optimiser": "sgd"},
        {"optimiser": "adam", "loss": "lovasz_focal", "schedule": "plateau"},
    ],
)
def test_every_optimiser_and_schedule_can_be_resumed(
    changed: dict[str, Any],
    make_trainer: MakeTrainer,
    digest: Digest,
    spectator: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An epoch of three steps, and no patience: the plateau's state matters at once.
    monkeypatch.setattr("u2net_platform.training.schedule.EPOCH_STEPS", 3)
    monkeypatch.setattr("u2net_platform.training.schedule.PATIENCE_EPOCHS", 1)
    monkeypatch.setattr("u2net_platform.training.schedule.LEAST_GAIN", 10.0)
    whole, stopped = make_trainer("whole", **changed), make_trainer("stopped", **changed)
    whole.run(spectator(), NullRecorder())

    def stop(step: Step) -> None:
        if (step.cycle, step.domain) == (2, "cube"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        stopped.run(spectator(after_step=stop), NullRecorder())
    resumed = make_trainer("stopped", **changed)
    resumed.resume()
    resumed.run(spectator(), NullRecorder())
    assert digest(resumed) == digest(whole)
    # As rounds of a federation: each part a trainer of its own, which is given the backbone.
    first, second = make_trainer("first", **changed), make_trainer("second", **changed)
    first.run(spectator(), NullRecorder(), until=2)
    second.network.load_owner("backbone", first.network.owner_state("backbone"))
    second.begin_at(2, tmp_path / "first")
    second.run(spectator(), NullRecorder())
    assert digest(second) == digest(whole)


@pytest.mark.parametrize(("epoch", "patience"), [(4, 1), (5, 2)])  # 8 steps, and 15: half a cycle
def test_a_run_that_its_schedule_ends_is_validated_at_its_end(
    epoch: int,
    patience: int,
    make_trainer: MakeTrainer,
    spectator: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = epoch * (1 + patience)
    chosen = {"EPOCH_STEPS": epoch, "PATIENCE_EPOCHS": patience, "LEAST_GAIN": 10.0}
    for name, value in chosen.items():
        monkeypatch.setattr(f"u2net_platform.training.schedule.{name}", value)
    monkeypatch.setattr("u2net_platform.training.schedule.SMALLEST_RATE", 1e-3)
    trainer = make_trainer(cycles=1000, schedule="plateau", learning_rate=2e-3)
    trainer.run(spectator(), NullRecorder())
    assert (trainer.step, trainer.cycle) == (steps, steps // 2)
    for name in trainer.domains:
        assert [cycle for cycle, _ in trainer.curves[f"dice/{name}"]] == [steps // 2]
        assert trainer.curves[f"loss/{name}"][-1][0] == steps // 2


def test_a_finished_run_that_is_resumed_has_nothing_left_to_do(
    make_trainer: MakeTrainer, digest: Digest, spectator: Any
) -> None:
    done = make_trainer(cycles=1)
    done.run(spectator(), NullRecorder())
    again, seen = make_trainer(cycles=1), spectator()
    again.resume()
    again.run(seen, NullRecorder())
    assert seen.steps == []
    assert digest(again) == digest(done)


def test_signals_are_handled_as_before_when_a_run_has_ended(
    make_trainer: MakeTrainer, spectator: Any
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    make_trainer(cycles=1).run(spectator(), NullRecorder())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_as_by_nohup_stops_no_run(
    make_trainer: MakeTrainer, spectator: Any
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen = spectator(after_step=lambda _: os.kill(os.getpid(), signal.SIGHUP))
    make_trainer(cycles=1).run(seen, NullRecorder())
    assert len(seen.steps) == 2


def test_a_run_that_goes_on_elsewhere_says_so(make_trainer: MakeTrainer, spectator: Any) -> None:
    make_trainer(cycles=2).run(spectator(), NullRecorder(), until=1)
    here, seen = make_trainer(cycles=2), spectator()
    here.resume()
    here.run(seen, NullRecorder(), until=1)
    assert seen.notes == []
    torch.set_num_threads(2)
    there = make_trainer(cycles=2)
    there.resume()
    there.run(seen, NullRecorder())
    (note,) = seen.notes
    assert "threads 1, now 2" in note


def test_a_checkpoint_of_another_release_is_refused(
    make_trainer: MakeTrainer, spectator: Any
) -> None:
    trainer = make_trainer(cycles=1)
    trainer.run(spectator(), NullRecorder())
    file = trainer._file
    tensors, state = load_checkpoint(file)
    for damage in ({**tensors, "network/new": torch.zeros(1)}, tensors):
        lacking = state if damage is not tensors else {"step": 1}
        save_checkpoint(file, damage, lacking)
        with pytest.raises(IncompatibleParts, match="another release"):
            make_trainer(cycles=1).resume()


def test_weights_for_which_the_gpu_has_no_room_are_not_of_another_release(
    make_trainer: MakeTrainer, spectator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    make_trainer(cycles=1).run(spectator(), NullRecorder())
    again = make_trainer(cycles=1)
    monkeypatch.setattr(again.network, "load_state_dict", full)
    with pytest.raises(TooLarge, match="no room for the run's weights"):
        again.resume()


def test_a_batch_for_which_the_gpu_has_no_room_is_told_with_the_remedy(
    make_trainer: MakeTrainer, spectator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = make_trainer()
    monkeypatch.setattr(trainer.network, "forward", full)
    with pytest.raises(TooLarge) as caught:
        trainer.run(spectator(), NullRecorder())
    assert "--batch-voxels" in caught.value.hint


def test_memory_that_training_has_freed_goes_back_however_it_ends(
    make_trainer: MakeTrainer, spectator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(module, "give_back_freed_memory", lambda: given.append(1))
    make_trainer(cycles=1).run(spectator(), NullRecorder())
    stopped = spectator(after_step=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        make_trainer("other").run(stopped, NullRecorder())
    assert len(given) == 2


def test_without_a_checkpoint_there_is_nothing_to_resume(make_trainer: MakeTrainer) -> None:
    with pytest.raises(NothingToResume):
        make_trainer("never").resume()


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_only_the_owner_s_weights_change(
    optimiser: str, make_trainer: MakeTrainer, spectator: Any
) -> None:
    trainer = make_trainer(owners={"slab"}, cycles=2, optimiser=optimiser, weight_decay=0.5)
    owners = ("backbone", "cube", "slab")
    before = {owner: tensors_digest(trainer.network.owner_state(owner)) for owner in owners}
    del trainer.domains["cube"]  # type: ignore[attr-defined]
    trainer.run(spectator(), NullRecorder())
    after = {owner: tensors_digest(trainer.network.owner_state(owner)) for owner in owners}
    assert {owner for owner in owners if after[owner] != before[owner]} == {"slab"}


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(
    make_trainer: MakeTrainer, spectator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    trainer = make_trainer()

    def spoil(step: Step) -> None:
        if step.cycle == 1:
            with torch.no_grad():
                trainer.network.domains["slab"].heads[0].bias.fill_(math.nan)

    with pytest.raises(Diverged, match="slab is nan at step 3"):
        trainer.run(spectator(after_step=spoil), NullRecorder())
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_checkpoints_are_written_along_the_way(
    make_trainer: MakeTrainer, spectator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, seen = tmp_path / "run" / "checkpoint.safetensors", []
    for seconds, expected in ((3600.0, [False] * 4), (0.0, [False, True, True, True])):
        monkeypatch.setattr(module, "CHECKPOINT_SECONDS", seconds)
        file.unlink(missing_ok=True)
        seen = []
        spectator_ = spectator(after_step=lambda _, seen=seen: seen.append(file.exists()))
        make_trainer(cycles=2).run(spectator_, NullRecorder())
        assert seen == expected
        assert file.exists()


@pytest.mark.parametrize(("ahead", "cycles"), [(0, 4), (3, 6)])
def test_the_minutes_fix_the_number_of_cycles_once_no_batch_was_made_before(
    make_trainer: MakeTrainer,
    spectator: Any,
    monkeypatch: pytest.MonkeyPatch,
    ahead: int,
    cycles: int,
) -> None:
    monkeypatch.setattr(budget, "WARM_UP_CYCLES", 2)
    monkeypatch.setattr(budget, "SLOW_SHARE", math.inf)
    monkeypatch.setattr(module, "batches_ahead", lambda _: ahead)
    monkeypatch.setattr(budget, "VALIDATION_SHARE", 1e12)  # one is due in the cycle that fixes it
    trainer = make_trainer(cycles=500, minutes=1e-6)
    seen = spectator()
    trainer.run(seen, NullRecorder())
    assert trainer.recipe.cycles == cycles
    assert len(seen.steps) == 2 * cycles
    assert [cycle for cycle, _ in seen.validations] == [cycles - 1, cycles]


@pytest.mark.parametrize("validation", [0.0, 40.0, 120.0])
def test_minutes_are_used_up_and_not_exceeded(
    make_trainer: MakeTrainer, spectator: Any, monkeypatch: pytest.MonkeyPatch, validation: float
) -> None:
    now = 0.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    def validate() -> dict[str, float]:
        pass_by(validation)
        return {}

    for one in (module, budget):
        monkeypatch.setattr(one, "time", SimpleNamespace(monotonic=lambda: now))
    trainer = make_trainer(cycles=500, minutes=20)
    monkeypatch.setattr(trainer, "_optimise", lambda *_: 1.0)
    monkeypatch.setattr(trainer, "validate", validate)
    seen = spectator(after_step=lambda step: pass_by(30.0 if step.cycle == 0 else 2.0))
    trainer.run(seen, NullRecorder())
    assert 0.9 * 1200 < now <= 1200
    cycles = [cycle for cycle, _ in seen.validations]
    assert len(cycles) == len(set(cycles)) <= 1 + module.VALIDATIONS
    assert cycles[-1] == trainer.recipe.cycles
    assert len(cycles) * validation < 0.4 * 1200


def test_minutes_are_not_exceeded_where_a_cycle_takes_one(
    make_trainer: MakeTrainer, spectator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def pass_by(_: Step) -> None:
        nonlocal now
        now += 30

    for one in (module, budget):
        monkeypatch.setattr(one, "time", SimpleNamespace(monotonic=lambda: now))
    trainer = make_trainer(cycles=500, minutes=8)
    monkeypatch.setattr(trainer, "_optimise", lambda *_: 1.0)
    monkeypatch.setattr(trainer, "validate", dict)
    trainer.run(spectator(after_step=pass_by), NullRecorder())
    assert 0.8 * 480 < now <= 480


def test_a_killed_worker_is_told_and_the_run_goes_on(
    make_trainer: MakeTrainer, digest: Digest, spectator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_trainer("whole")
    whole.run(spectator(), NullRecorder())

    def kill(step: Step) -> None:
        if step.cycle == 1:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)

    trainer = make_trainer()
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(trainer, "_workers", 1)
    with pytest.raises(WorkerEnded, match="makes patches has ended"):
        trainer.run(spectator(after_step=kill), NullRecorder())
    again = make_trainer()
    again.resume()
    assert 0 < again.step < whole.step
    again.run(spectator(), NullRecorder())
    assert digest(again) == digest(whole)


@pytest.mark.parametrize(("stopped", "fixed"), [(2, False), (4, True)])
def test_a_run_that_goes_on_keeps_the_cycles_once_they_were_fixed(
    make_trainer: MakeTrainer,
    spectator: Any,
    monkeypatch: pytest.MonkeyPatch,
    stopped: int,
    fixed: bool,
) -> None:
    monkeypatch.setattr(budget, "WARM_UP_CYCLES", 2)
    monkeypatch.setattr(budget, "TIMING_SHARE", 0)

    def steps_until(cycle: int, trainer: Trainer) -> list[Step]:
        def stop(step: Step) -> None:
            if step.cycle == cycle:
                signal.raise_signal(signal.SIGTERM)

        seen = spectator(after_step=stop)
        with pytest.raises(Interrupted):
            trainer.run(seen, NullRecorder())
        return list(seen.steps)

    first = steps_until(stopped, make_trainer(cycles=500, minutes=1))
    trainer = make_trainer(cycles=500, minutes=1)
    trainer.resume()
    then = steps_until(12, trainer)
    assert ({step.cycles for step in then} == {first[-1].cycles}) is fixed


def test_curves_and_validations_are_noted_for_every_domain(
    make_trainer: MakeTrainer, spectator: Any
) -> None:
    trainer, seen = make_trainer(cycles=3), spectator()
    trainer.run(seen, NullRecorder())
    assert [cycle for cycle, _ in seen.validations] == [1, 2, 3]
    for name in ("cube", "slab"):
        losses = [step.loss for step in seen.steps if step.domain == name]
        [(cycle, mean)] = trainer.curves[f"loss/{name}"]
        assert cycle == 3
        assert mean == pytest.approx(sum(losses) / len(losses))
        dice = [(cycle, values[name]) for cycle, values in seen.validations]
        assert trainer.curves[f"dice/{name}"] == dice
        assert all(0 <= value <= 1 for _, value in dice)


def test_training_learns(make_trainer: MakeTrainer, spectator: Any) -> None:
    trainer, seen = make_trainer(cycles=24, learning_rate=1e-2), spectator()
    trainer.run(seen, NullRecorder())
    for name in ("cube", "slab"):
        losses = [step.loss for step in seen.steps if step.domain == name]
        assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


@pytest.mark.parametrize(("temperature", "cubes"), [(1, 16), (None, 10)])
def test_a_domain_has_its_share_of_the_steps(
    temperature: float | None,
    cubes: int,
    domains: dict[str, TrainingDomain],
    make_trainer: MakeTrainer,
    spectator: Any,
) -> None:
    domains["cube"] = replace(domains["cube"], training=[*domains["cube"].training] * 4)  # 8 and 2
    seen = spectator()
    make_trainer(cycles=10, temperature=temperature).run(seen, NullRecorder())
    names = [step.domain for step in seen.steps]
    assert abs(names.count("cube") - cubes) <= 1
    assert (names == ["cube", "slab"] * 10) is (temperature is None)
