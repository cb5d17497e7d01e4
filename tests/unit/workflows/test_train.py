"""What a run says before it begins, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.data.plan import Plan, training_bytes
from u2net_platform.errors import Interrupted
from u2net_platform.model.topology import Architecture
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import TrackingDown
from u2net_platform.tracking.outbox import OutboxRecorder
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Step
from u2net_platform.workflows import train
from u2net_platform.workflows.request import Request


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)

    def on_step(self, step: Step) -> None: ...

    def on_validation(self, cycle: int, dice: object) -> None: ...


def test_an_interruption_that_cannot_be_recorded_still_says_how_to_go_on(
    settings: Settings, publish_bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise TrackingDown("nobody answers", "Start it.")

    def interrupted(run: object, watcher: object) -> None:
        raise Interrupted("Stopped", "")

    run_id, watcher = publish_bright().run_id, Notes()
    catalog = Catalog.open(settings.database_url)
    (tmp_path / "folder").write_text("a file: the outbox cannot be written")
    recorder = OutboxRecorder(tmp_path / "folder" / "outbox.jsonl", down, watcher.on_note)
    request = Request(domains=("bright",), recipe=Recipe.load("default"))
    run = train._Run(settings, catalog, run_id, request, {}, recorder)
    monkeypatch.setattr(train._Run, "_trainer", interrupted)
    with pytest.raises(Interrupted) as caught:
        run.go(watcher, resuming=False)
    assert f"--resume {run_id}" in caught.value.hint
    assert "outbox" in watcher.texts[-1]
    assert catalog.runs.get(run_id).status == "interrupted"


def test_a_batch_that_main_memory_may_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        shape_zyx=(16, 16, 16),
        patch_zyx=(16, 16, 16),
        strides_zyx=((2, 2, 2),) * 5,
        kernels_zyx=((3, 3, 3),) * 6,
        batch_size=2,
        statistics=None,
    )
    need = training_bytes(2 * 16**3, 3)
    cpu, own = torch.device("cpu"), Architecture()
    common = Architecture(name="paper", common_patch_zyx=(32, 32, 32))

    def told(architecture: Architecture, device: torch.device = cpu) -> str | None:
        return train._memory_note("heart", plan, 3, architecture, device)

    monkeypatch.setattr(train, "free_bytes", lambda: need)
    assert told(own) is None
    assert "--batch-voxels" in (told(common) or "")
    monkeypatch.setattr(train, "free_bytes", lambda: need - 1)
    assert "heart" in (told(own) or "")
    assert told(own, torch.device("cuda")) is None
