"""The paper's protocol on phantoms: stopped in the middle, resumed, and nothing trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.errors import Interrupted
from u2net_platform.settings import Settings
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import Step, Trainer
from u2net_platform.workflows.add_domain import add_domain
from u2net_platform.workflows.study import Study, StudyResult, run_study, to_markdown


class Counting:
    def __init__(self) -> None:
        self.steps = 0

    def on_note(self, text: str) -> None: ...

    def on_step(self, step: Step) -> None:
        self.steps += 1

    def on_validation(self, cycle: int, dice: object) -> None: ...

    def on_prepare(self, domain: str, case: str) -> None: ...

    def on_case(self, case: str) -> None: ...


@pytest.fixture
def settings(narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    settings = Settings()
    catalog = Catalog.open(settings.database_url)
    for kind in ("ball", "twin", "ct_organ"):
        write_phantom_plugin(kind, settings.plugins_dir)
        data = write_phantom(kind, tmp_path / "data", 3, seed=0)
        add_domain(find_plugin(kind, settings), catalog, data)
    torch.set_num_threads(1)
    return settings


def test_a_study_that_is_stopped_goes_on_and_trains_nothing_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.load("default", ["temperature=2"], cycles=2, batch_voxels=16384)
    study = Study(("ball", "twin"), "ct_organ", recipe, device="cpu", workers=0)
    watcher = Counting()

    def go() -> StudyResult:
        return run_study(settings, study, watcher, watcher.on_prepare, watcher.on_case)

    optimise = Trainer._optimise

    def stop_in_step_9(self: Trainer, *batch: object) -> float:
        if watcher.steps == 8:  # within the shared network, after the three independent ones
            self.save()
            raise Interrupted("stopped", "Go on.")
        return optimise(self, *batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stop_in_step_9)
        with pytest.raises(Interrupted):
            go()
    result = go()
    # Independent 3 x 2 steps, shared and universal 2 x 2 each and 2 of the new domain on either.
    assert watcher.steps == 6 + 2 * (4 + 2)
    runs = Catalog.open(settings.database_url).runs.list()
    assert [run.status for run in runs] == ["completed"] * 7
    assert {run.recipe["temperature"] for run in runs} == {None}  # else steps would be uneven
    assert go().modes == result.modes
    assert watcher.steps == 18

    # What the plugin of the new domain says has changed: its three runs no longer count.
    spec = settings.plugins_dir / "ct_organ" / "domain.toml"
    spec.write_text(spec.read_text("utf-8").replace("elastic = true", "elastic = false"), "utf-8")
    again = go()
    assert watcher.steps == 18 + 3 * 2
    old, new = ({v for one in each.modes for v in one.versions} for each in (result, again))
    assert (len(old & new), len(new - old)) == (6, 3)

    # A case that failed may have been on a drive that was away: it is scored again.
    catalog = Catalog.open(settings.database_url)
    scores = catalog.versions.get("ball", 1).metrics["test"]
    catalog.versions.add_metrics("ball", 1, {"test": {**scores, "failures": 1}})
    assert sum(one.failures for one in go().modes) == 0

    assert {count for one in result.modes for count in one.steps.values()} == {2}
    independent, shared, universal = result.modes
    assert independent.parameters > shared.parameters > 5 * universal.parameters
    assert independent.added == pytest.approx(independent.parameters / 2, rel=0.01)
    assert shared.added is not None
    assert shared.added < 0.1 * (universal.added or 0) < 0.1 * universal.parameters
    assert {name for one in result.modes for name in one.dice} == {"ball", "twin", "ct_organ"}

    text = to_markdown(result)
    assert "2 steps of every domain in every mode" in text
    for mode in result.modes:
        assert f"{mode.parameters:,}" in text
    assert "Universal against independent" in text
