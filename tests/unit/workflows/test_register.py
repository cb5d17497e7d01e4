"""Versions in a real MLflow store, loaded back by MLflow alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas
import pytest
import torch
from mlflow import MlflowClient
from typer.testing import CliRunner

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import Slot
from u2net_platform.cli.app import app
from u2net_platform.errors import NotWritable
from u2net_platform.files import exclusive
from u2net_platform.imaging.volume import read_image, read_labels, write_array
from u2net_platform.inference.device import choose_device
from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import TrackingDown
from u2net_platform.tracking.registry import Registry
from u2net_platform.workflows.bundle_file import read_bundle
from u2net_platform.workflows.register import LOCK, Registration, keep_registered, register
from u2net_platform.workflows.request import LOCK_FILE
from u2net_platform.workflows.versions import load_predictor

SCORES = {"overall": {"dice": 0.875}, "classes": {"organ": {"dice": 0.875, "hd95_mm": 2.5}}}


@pytest.fixture
def client(settings: Settings) -> Iterator[MlflowClient]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(settings.mlflow_uri)
    yield MlflowClient(settings.mlflow_uri)
    mlflow.set_tracking_uri(before)


def test_a_version_is_registered_once_and_leads_back_to_the_catalog(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    first, second = publish_bright(), publish_bright()
    done = register(settings, ["bright"])
    assert done.registered == {"bright:1": "u2net-bright/1", "bright:2": "u2net-bright/2"}
    assert vars(register(settings, ["bright"])) == vars(type(done)())

    there = client.get_model_version("u2net-bright", "2")
    assert there.tags["u2net.version"] == second.reference
    assert there.tags["u2net.backbone"] == first.backbone_digest
    assert there.tags["u2net.run"] == second.run_id
    run = client.get_run(there.run_id)
    assert run.data.tags["u2net.run"] == second.run_id
    assert run.info.status == "FINISHED"
    shown = {
        Path(one.path).name
        for one in client.list_artifacts(there.run_id, "bright/model/data/version")
    }
    assert shown == {"version.u2net", "spec.json", "plan.json", "metrics.json", "README.md"}


def test_what_a_run_at_work_has_published_is_left_to_it(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    version, catalog = publish_bright(), Catalog.open(settings.database_url)
    catalog.runs.update(version.run_id, "running", 1)
    catalog.deployments.deploy(Slot(domain="bright"), 1, "me", force=True)
    with exclusive(settings.runs_dir / version.run_id / LOCK_FILE):
        done = register(settings, ["bright"])
        assert (done.registered, done.aliases, done.failed) == ({}, [], {})
        catalog.runs.update(version.run_id, "completed", 2)  # it registers under its own lock
        done = register(settings, ["bright"])
        assert done.registered == {"bright:1": "u2net-bright/1"}
        assert done.aliases == ["u2net-bright@champion"]


def test_scores_and_aliases_follow_the_catalog(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    publish_bright(), publish_bright()
    register(settings, ["bright"])
    catalog = Catalog.open(settings.database_url)
    for number in (1, 2):
        external = {"external/our_ward": SCORES}
        catalog.versions.add_metrics("bright", number, {"test": SCORES} | external)
    champion, north = Slot(domain="bright"), Slot(domain="bright", site="north")
    catalog.deployments.deploy(champion, 2, "me")
    catalog.deployments.deploy(north, 1, "me")
    done = register(settings, ["bright"])
    assert done.updated == ["bright:1", "bright:2"]
    tags = client.get_model_version("u2net-bright", "1").tags
    assert not any("our_ward" in key for key in tags)  # it stays in the catalog
    assert done.aliases == ["u2net-bright@champion", "u2net-bright@champion_AT_north"]
    assert int(client.get_model_version_by_alias("u2net-bright", "champion").version) == 2
    there = client.get_model_version("u2net-bright", "1")
    assert there.tags["u2net.test.overall.dice"] == "0.875"
    assert client.get_run(there.run_id).data.metrics["bright/test/classes/organ/hd95_mm"] == 2.5

    catalog.deployments.deploy(champion, 1, "me")
    assert register(settings, ["bright"]).aliases == ["u2net-bright@champion"]
    assert int(client.get_model_version_by_alias("u2net-bright", "champion").version) == 1

    catalog.deployments.withdraw(champion, "me")
    assert register(settings, ["bright"]).aliases == ["u2net-bright@champion"]
    assert register(settings, ["bright"]).aliases == []
    assert list(client.get_registered_model("u2net-bright").aliases) == ["champion_AT_north"]


def test_what_lies_in_mlflow_follows_scores_and_gets_pictures_that_are_asked_for(
    settings: Settings, client: MlflowClient, publish_bright, tmp_path: Path
) -> None:
    publish_bright()
    register(settings, ["bright"])
    Catalog.open(settings.database_url).versions.add_metrics("bright", 1, {"test": SCORES})
    assert register(settings, ["bright"], sheet=lambda _: b"a picture").updated == ["bright:1"]
    assert register(settings, ["bright"], sheet=lambda _: b"a picture").updated == []

    there = client.get_model_version("u2net-bright", "1")
    place = client.download_artifacts(there.run_id, "bright/model/data/version", str(tmp_path))
    assert (Path(place) / "pictures.png").read_bytes() == b"a picture"
    assert "no scores" not in (Path(place) / "README.md").read_text()
    members = read_bundle(Path(place) / "version.u2net").members
    assert json.loads(members["metrics.json"]) == {"test": SCORES}
    assert members["pictures.png"] == b"a picture"

    newer = SCORES | {"overall": SCORES["overall"] | {"dice": 0.5}}
    Catalog.open(settings.database_url).versions.add_metrics("bright", 1, {"test": newer})
    assert register(settings, ["bright"]).updated == ["bright:1"]  # without pictures
    assert register(settings, ["bright"]).updated == []
    assert register(settings, ["bright"], sheet=lambda _: b"a picture").updated == ["bright:1"]
    assert register(settings, ["bright"], sheet=lambda _: b"a picture").updated == []


def test_sync_ends_with_a_fault_if_something_could_not_be_told(
    settings: Settings, publish_bright
) -> None:
    publish_bright(domain_digest="f" * 64)
    result = CliRunner().invoke(app, ["model", "sync", "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["error_code"]) == (6, "CatalogUnreachable")
    assert list(document["data"]["failed"]) == ["bright:1"]


def test_mlflow_loads_and_predicts_as_the_platform_does(
    settings: Settings, client: MlflowClient, publish_bright, scan, tmp_path: Path
) -> None:
    publish_bright()
    register(settings, ["bright"])
    image, output = tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz"
    write_array(image, scan.array, scan.grid)
    wanted = load_predictor(settings, "bright:1", choose_device("cpu")).predictor.predict(
        read_image([image])
    )

    model = mlflow.pyfunc.load_model("models:/u2net-bright/1")
    (found,) = model.predict(pandas.DataFrame({"image": [str(image)]}))
    assert np.array_equal(found, wanted.array)
    model.predict([{"image": str(image), "output": str(output)}])
    assert np.array_equal(read_labels(output).array, wanted.array)
    before = image.read_bytes()
    for target in (image, output):  # neither the image nor what is there is replaced
        with pytest.raises(NotWritable):
            model.predict([{"image": str(image), "output": str(target)}])
    assert image.read_bytes() == before
    pickled = [path for path in settings.home.glob("mlartifacts/**/*") if path.suffix == ".pkl"]
    assert pickled == []


def test_weights_that_are_gone_keep_no_other_version_back(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    publish_bright(probe=None)
    publish_bright(domain_digest="f" * 64)
    notes: list[str] = []
    keep_registered(settings, ["bright"], notes.append)
    assert [one.version for one in client.search_model_versions("name = 'u2net-bright'")] == [1]
    (note,) = notes
    assert "bright:2" in note


def test_a_server_that_is_down_is_said_and_no_fault(settings: Settings, publish_bright) -> None:
    publish_bright()
    notes: list[str] = []
    down = settings.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    keep_registered(down, ["bright"], notes.append)
    (note,) = notes
    assert "u2net model sync" in note


def test_whatever_mlflow_raises_after_a_change_is_said_and_no_fault(
    settings: Settings, publish_bright, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_bright()
    notes: list[str] = []
    monkeypatch.setattr(Registry, "__init__", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    keep_registered(settings, ["bright"], notes.append)
    without_driver = settings.model_copy(update={"tracking_uri": "mysql://127.0.0.1:9/mlflow"})
    monkeypatch.undo()
    keep_registered(without_driver, ["bright"], notes.append)
    assert "ZeroDivisionError" in notes[0]
    assert "install the driver" in notes[1] or "MySQLdb" in notes[1]


def test_a_model_of_another_catalog_is_left_as_it_is(
    settings: Settings, client: MlflowClient, publish_bright, bright_network
) -> None:
    def register_champion() -> Registration:
        publish_bright(), publish_bright()
        catalog = Catalog.open(settings.database_url)
        catalog.deployments.deploy(Slot(domain="bright"), 1, "me", force=True)
        return register(settings, ["bright"])

    theirs = register_champion()
    before = client.get_model_version("u2net-bright", "1")
    for file in settings.home.glob("catalog.db*"):  # and a catalog is started anew
        file.unlink()
    with torch.no_grad():
        next(bright_network.domains.parameters()).add_(1)
    done = register_champion()
    assert theirs.aliases and not (done.registered or done.updated or done.aliases)
    assert "bright:1 of another catalog" in done.failed["u2net-bright"]
    assert client.get_model_version("u2net-bright", "1").tags == before.tags
    assert len(client.search_model_versions("name = 'u2net-bright'")) == 2


def test_whatever_a_class_is_called_its_scores_reach_mlflow(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    publish_bright()
    classes = {"left + right (all), a/b & c": {"dice": 0.5}}
    scores = {"test": SCORES | {"classes": classes}}
    Catalog.open(settings.database_url).versions.add_metrics("bright", 1, scores)
    assert register(settings, ["bright"]).failed == {}
    there = client.get_model_version("u2net-bright", "1")
    name = "left _ right _all__ a_b _ c"
    assert there.tags[f"u2net.test.classes.{name}.dice"] == "0.5"
    assert client.get_run(there.run_id).data.metrics[f"bright/test/classes/{name}/dice"] == 0.5


def test_a_version_that_mlflow_refuses_keeps_no_other_back(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    publish_bright(), publish_bright()
    long = {"test": SCORES | {"classes": {"organ" * 50: {"dice": 0.5}}}}
    Catalog.open(settings.database_url).versions.add_metrics("bright", 1, long)
    done = register(settings, ["bright"])
    assert list(done.failed) == ["bright:1"]
    assert list(done.registered) == ["bright:2"]


def test_metrics_that_did_not_arrive_are_sent_next_time(
    settings: Settings, client: MlflowClient, publish_bright, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise TrackingDown("nobody answers", "Start it.")

    publish_bright()
    Catalog.open(settings.database_url).versions.add_metrics("bright", 1, {"test": SCORES})
    with monkeypatch.context() as outage:
        outage.setattr(Registry, "_log_metrics", silent)
        with pytest.raises(TrackingDown):
            register(settings, ["bright"])
    register(settings, ["bright"])
    there = client.get_model_version("u2net-bright", "1")
    assert client.get_run(there.run_id).data.metrics["bright/test/overall/dice"] == 0.875


def test_after_a_change_nobody_is_waited_for(settings: Settings, publish_bright) -> None:
    publish_bright()
    notes: list[str] = []
    with exclusive(settings.home / LOCK):  # as `model sync --pictures` holds it for an hour
        keep_registered(settings, ["bright"], notes.append)
    (note,) = notes
    assert "in use" in note and "u2net model sync" in note


def test_after_a_change_a_full_disk_is_said_and_no_fault(
    settings: Settings, publish_bright, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish_bright()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    notes: list[str] = []
    keep_registered(settings, ["bright"], notes.append)
    (note,) = notes
    assert "u2net model sync" in note
