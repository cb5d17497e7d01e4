"""Runs from a data set's folder to published versions, and what stops them. One home for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import VersionRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.errors import IncompatibleParts, NothingToResume
from u2net_platform.files import exclusive
from u2net_platform.settings import Settings
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin
from u2net_platform.training.checkpoint import load_checkpoint
from u2net_platform.training.recipe import Recipe
from u2net_platform.training.trainer import CHECKPOINT_FILE, Step
from u2net_platform.workflows import compatibility
from u2net_platform.workflows.add_domain import add_domain
from u2net_platform.workflows.request import LOCK_FILE, Request, request_of
from u2net_platform.workflows.train import Finished, resume, start
from u2net_platform.workflows.verify import Verification, verify

CYCLES, BATCH_VOXELS = 4, 32768
TRAIN = ("train", "ball", "twin", "--device", "cpu", "--batch-voxels", str(BATCH_VOXELS))
RUN = "from u2net_platform.cli import main; main()"
# Dies in its seventh step, two steps after its last checkpoint.
DIES = """
import os, signal
from u2net_platform.training import trainer
trainer.CHECKPOINT_SECONDS, steps = 0.0, []
optimise = trainer.Trainer._optimise
def count(self, batch, rate):
    steps.append(batch)
    if len(steps) == 5:
        trainer.CHECKPOINT_SECONDS = 1e9
    if len(steps) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return optimise(self, batch, rate)
trainer.Trainer._optimise = count
"""


class Silent:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, step: Step) -> None: ...

    def on_validation(self, cycle: int, dice: Mapping[str, float]) -> None: ...


def ignore(domain: str, case: str) -> None: ...


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home with three phantom domains and their data."""
    root = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("U2NET_")]:
            patch.delenv(name)
        patch.setenv("U2NET_HOME", str(root / "home"))
        patch.setenv("OMP_NUM_THREADS", "1")  # of subprocesses: the same sums as here
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        settings = Settings()
        catalog = Catalog.open(settings.database_url)
        for kind, cases in (("ball", 7), ("twin", 3), ("ct_organ", 3)):
            write_phantom_plugin(kind, settings.plugins_dir)
            data = write_phantom(kind, root / "data", cases, seed=0)
            add_domain(find_plugin(kind, settings), catalog, data)
        yield settings
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def catalog(settings: Settings) -> Catalog:
    return Catalog.open(settings.database_url)


@pytest.fixture(scope="module")
def whole(settings: Settings) -> Finished:
    """A run that nothing stopped."""
    return start(settings, request_for("ball", "twin"), Silent(), ignore)


@pytest.fixture(scope="module")
def killed(catalog: Catalog) -> str:
    """The id of a run like it that was killed, and that no test goes on with."""
    return kill(catalog)


def kill(catalog: Catalog) -> str:
    known = {run.id for run in catalog.runs.list()}
    process = u2net(*TRAIN, "--cycles", str(CYCLES), "--workers", "1", before=DIES)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    (run,) = [run for run in catalog.runs.list() if run.id not in known]
    assert run.status == "running"
    assert (Path(run.directory) / CHECKPOINT_FILE).exists()
    return run.id


def request_for(
    *domains: str,
    base: str | None = None,
    cycles: int = CYCLES,
    frozen: bool = True,
    warm_start: str = "none",
    fold: int | None = 0,
) -> Request:
    return Request(
        domains=domains,
        recipe=Recipe.load("default", cycles=cycles, batch_voxels=BATCH_VOXELS),
        base=base,
        frozen=frozen,
        warm_start=warm_start,
        fold=fold,
        device="cpu",
        workers=0,
    )


def u2net(*arguments: str, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", before + RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def digests(versions: tuple[VersionRecord, ...]) -> list[tuple[str, str, str]]:
    return [(one.domain, one.backbone_digest, one.domain_digest) for one in versions]


def test_a_run_publishes_a_version_of_each_domain_on_one_backbone(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    assert [version.reference for version in whole.versions] == ["ball:1", "twin:1"]
    for version in whole.versions:
        assert catalog.versions.get(version.domain, 1) == version
    assert len({version.backbone_digest for version in whole.versions}) == 1
    assert 0 <= whole.versions[0].metrics["validation"]["dice"] <= 1
    assert whole.versions[1].metrics == {}  # too few cases to validate on
    run = catalog.runs.get(whole.run.id)
    assert (run.status, run.step) == ("completed", 2 * CYCLES)
    split = run.fingerprints["ball"]["split"]
    assert {part: len(cases) for part, cases in split.items()} == {
        "training": 4,
        "validation": 1,
        "test": 2,
    }


def test_mlflow_has_the_parameters_and_curves_of_a_finished_run(
    settings: Settings, whole: Finished
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri)
    run = client.get_run(whole.run.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe/cycles"] == str(CYCLES)
    for name, curve in whole.curves.items():
        points = client.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in points] == curve
    assert {"loss/ball", "loss/twin", "dice/ball"} <= whole.curves.keys()


def test_a_run_is_not_for_two_processes_at_once(settings: Settings, killed: str) -> None:
    with exclusive(settings.runs_dir / killed / LOCK_FILE):
        process = u2net("train", "--resume", killed, "--json")
        answer, _ = process.communicate(timeout=120)
    assert process.returncode == 7
    assert json.loads(answer)["error_code"] == "RunBusy"


def test_a_run_whose_data_has_changed_is_not_resumed(
    settings: Settings, killed: str, catalog: Catalog
) -> None:
    case = catalog.runs.get(killed).fingerprints["ball"]["split"]["training"][0]
    folder = Path(catalog.domains.get("ball").data_dir or "")
    (label,) = folder.glob(f"labelsTr/{case}*")
    (other,) = [file for file in sorted(folder.glob("labelsTr/*")) if file != label][:1]
    (image,), (other_image,) = (folder.glob(f"imagesTr/{f.name}") for f in (label, other))
    content = label.read_bytes(), image.read_bytes()
    label.write_bytes(other.read_bytes())
    image.write_bytes(other_image.read_bytes())
    try:
        with pytest.raises(IncompatibleParts, match="changed"):
            resume(settings, killed, Silent(), ignore)
    finally:
        label.write_bytes(content[0])
        image.write_bytes(content[1])


def test_a_run_whose_plugin_has_changed_is_not_resumed(settings: Settings, killed: str) -> None:
    spec = settings.plugins_dir / "ball" / "domain.toml"
    text = spec.read_text("utf-8")
    spec.write_text(text.replace("elastic = true", "elastic = false"), "utf-8")
    try:
        with pytest.raises(IncompatibleParts, match="plugin of ball have changed"):
            resume(settings, killed, Silent(), ignore)
    finally:
        spec.write_text(text, "utf-8")


def test_a_killed_run_that_is_resumed_reaches_the_weights_of_one_that_was_not(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    killed = kill(catalog)
    process = u2net("train", "--resume", killed, "--json")
    answer, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    data = json.loads(answer)["data"]
    assert (data["runs"][0]["status"], data["runs"][0]["step"]) == ("completed", 2 * CYCLES)
    versions = tuple(catalog.versions.by_run(killed))
    assert digests(versions) == digests(whole.versions)
    with pytest.raises(NothingToResume, match="completed"):
        resume(settings, killed, Silent(), ignore)


def test_adapting_leaves_every_older_version_as_it_is(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    rows = catalog.versions.list()
    files = {path: path.read_bytes() for path in settings.weights_dir.iterdir()}
    request = request_for("ct_organ", base="ball:1", cycles=2)
    (version,) = start(settings, request, Silent(), ignore).versions
    assert version.backbone_digest == whole.versions[0].backbone_digest
    assert catalog.runs.get(version.run_id).base_version == "ball:1"
    assert [row for row in catalog.versions.list() if row.id != version.id] == rows
    assert {path: path.read_bytes() for path in files} == files
    added = {path.stem for path in settings.weights_dir.iterdir()} - {path.stem for path in files}
    assert added <= {version.domain_digest, version.probe["input"]}
    (of_run,) = catalog.versions.by_run(version.run_id)
    found = {one.version: one for one in verified(settings, catalog)}
    assert {one.output for one in found.values()} == {"same"}
    assert [found[row.reference].output_digest for row in rows] == [
        row.probe["output"] for row in rows
    ]
    assert of_run.reference in found


def test_one_flipped_bit_is_found_and_named(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    version = whole.versions[1]
    path = WeightStore(settings.weights_dir).path(version.domain_digest)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    try:
        process = u2net("model", "verify", "--json")
        answer, _ = process.communicate(timeout=120)
        found = json.loads(answer)
        assert process.returncode == 8
        assert str(path) in found["message"]
        faulty = {one["version"] for one in found["data"]["versions"] if one["fault"]}
        sharing = [v for v in catalog.versions.list() if v.domain_digest == version.domain_digest]
        assert faulty == {one.reference for one in sharing}
    finally:
        content[-5] ^= 1
        path.write_bytes(content)
    assert u2net("model", "verify", "ball:1").wait(120) == 0


def test_a_changed_output_is_a_fault_only_on_the_same_machine(
    settings: Settings, whole: Finished
) -> None:
    store = WeightStore(settings.weights_dir)
    version = whole.versions[0]
    changed = version.model_copy(update={"probe": {**version.probe, "output": "0" * 64}})
    elsewhere = changed.model_copy(
        update={"probe": {**changed.probe, "machine": {"torch": "1.0", "processor": "abacus"}}}
    )
    before = version.model_copy(update={"probe": None})
    here, there, none = verify(store, [changed, elsewhere, before], lambda name: None)
    assert (here.output, there.output, none.output) == ("changed", "other machine", "no probe")
    assert "0" * 64 in (here.fault or "")
    assert there.fault is none.fault is None


def test_a_network_goes_on_with_a_new_domain_and_older_versions_keep_theirs(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    before = catalog.versions.list()
    request = request_for("ball", "ct_organ", base="ball:1", cycles=1, frozen=False)
    finished = start(settings, request, Silent(), ignore)
    asked = request_of(settings, finished.run.id)
    assert asked is not None
    assert asked.starts["ball"] == "ball:1"
    assert finished.run.kind == "train"
    assert finished.run.base_version == "ball:1"
    backbones = {version.backbone_digest for version in finished.versions}
    assert len(backbones) == 1
    assert backbones != {whole.versions[0].backbone_digest}
    assert all(row in catalog.versions.list() for row in before)
    assert {one.output for one in verified(settings, catalog)} == {"same"}


@pytest.mark.parametrize("frozen", [True, False])
def test_a_case_that_a_base_has_learned_from_is_never_tested(
    frozen: bool, settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    learned = set(whole.run.fingerprints["ball"]["split"]["training"])
    (other,) = start(
        settings, request_for("ct_organ", base="ball:1", cycles=1), Silent(), ignore
    ).versions
    watcher = Silent()
    # Another domain's version on that backbone, which has seen these cases all the same.
    request = request_for("ball", base=other.reference, cycles=1, frozen=frozen, fold=1)
    run = start(settings, request, watcher, ignore).run
    split = run.fingerprints["ball"]["split"]
    assert learned <= set(split["training"])
    said, begun = watcher.notes
    assert "ball: test cases that its base has learned from train instead" in said
    assert f"u2net train --resume {run.id}" in begun
    asked = request_of(settings, run.id)
    assert asked is not None
    assert learned <= set(asked.learned["ball"])

    from mlflow import MlflowClient

    kept = MlflowClient(settings.mlflow_uri).get_run(run.mlflow_run_id).data.params
    assert not any(case in str(kept) for case in learned)


def test_a_domain_that_is_not_there_is_told_before_another_is_trained(
    settings: Settings, catalog: Catalog
) -> None:
    known = catalog.runs.ids()
    process = u2net("train", "ball", "bell", "--mode", "independent", "--cycles", "1")
    told = process.communicate(timeout=120)[1]
    assert (process.returncode, "bell" in told) == (3, True)
    assert catalog.runs.ids() == known


def test_what_could_not_be_published_is_not_trained(
    settings: Settings, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = catalog.runs.ids()
    monkeypatch.setattr(compatibility, "LARGEST_SPACING_MM", 0.5)
    with pytest.raises(IncompatibleParts, match=r"ball .* not published: spacing, mm"):
        start(settings, request_for("ball", cycles=1), Silent(), ignore)
    assert catalog.runs.ids() == known


def test_a_run_of_all_cases_tests_none_and_says_so(settings: Settings, catalog: Catalog) -> None:
    finished = start(settings, request_for("ball", cycles=1, fold=None), Silent(), ignore)
    run = catalog.runs.get(finished.run.id)
    assert run.fold is None
    split = run.fingerprints["ball"]["split"]
    assert (len(split["training"]), len(split["validation"]), split["test"]) == (6, 1, [])
    reference = finished.versions[0].reference
    process = u2net("evaluate", reference, "--json")
    answer, _ = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "no labelled test case" in json.loads(answer)["message"]
    shown = subprocess.run(
        [sys.executable, "-c", RUN, "model", "show", reference],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert "fold all" in shown.stdout


def test_a_warm_start_begins_with_the_nearest_domain_s_adapter(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    request = request_for("ct_organ", base="ball:1", cycles=1)
    cold = start(settings, request, Silent(), ignore)
    start(settings, request_for("twin", base="ball:1", cycles=1), Silent(), ignore)
    again = start(settings, request, Silent(), ignore)
    assert digests(again.versions) == digests(cold.versions)  # whoever was added in between
    request = request_for("ct_organ", base="ball:1", cycles=1, warm_start="twin:1")
    warm = start(settings, request, Silent(), ignore)
    asked = request_of(settings, warm.run.id)
    assert asked is not None
    assert asked.starts == {"ct_organ": "twin:1"}
    assert warm.versions[0].domain_digest != cold.versions[0].domain_digest
    assert warm.versions[0].backbone_digest == cold.versions[0].backbone_digest
    request = request_for("ct_organ", base="ball:1", cycles=1, warm_start="auto")
    asked = request_of(settings, start(settings, request, Silent(), ignore).run.id)
    assert asked is not None
    assert asked.starts["ct_organ"].partition(":")[0] in {"ball", "twin"}


def verified(settings: Settings, catalog: Catalog) -> list[Verification]:
    store = WeightStore(settings.weights_dir)
    return verify(store, catalog.versions.list(), lambda name: None)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(
    settings: Settings, whole: Finished, catalog: Catalog
) -> None:
    known = {run.id for run in catalog.runs.list()}

    def new_checkpoints() -> list[Path]:
        found = settings.runs_dir.glob(f"*/{CHECKPOINT_FILE}")
        return [file for file in found if file.parent.name not in known]

    saves_always = "from u2net_platform.training import trainer; trainer.CHECKPOINT_SECONDS = 0.0\n"
    process = u2net(*TRAIN, "--cycles", "1000", "--workers", "1", "--json", before=saves_always)
    deadline = time.monotonic() + 100
    while not new_checkpoints():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # A terminal sends the signal to the workers as well.
    os.killpg(process.pid, signal.SIGINT)
    answer, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    (run,) = [run for run in catalog.runs.list() if run.id not in known]
    assert f"--resume {run.id}" in json.loads(answer)["hint"]
    assert run.status == "interrupted"
    _, state = load_checkpoint(Path(run.directory) / CHECKPOINT_FILE)
    assert state["step"] == run.step > 0
