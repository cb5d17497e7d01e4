"""Versions in a real MLflow store, loaded back by MLflow alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas
import pytest
from mlflow import MlflowClient

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import Slot
from u2net_platform.imaging.volume import read_image, read_labels, write_array
from u2net_platform.inference.device import choose_device
from u2net_platform.settings import Settings
from u2net_platform.workflows.register import keep_registered, register
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


def test_scores_and_aliases_follow_the_catalog(
    settings: Settings, client: MlflowClient, publish_bright
) -> None:
    publish_bright(), publish_bright()
    register(settings, ["bright"])
    catalog = Catalog.open(settings.database_url)
    for number in (1, 2):
        catalog.versions.add_metrics("bright", number, {"test": SCORES})
    champion, north = Slot(domain="bright"), Slot(domain="bright", site="north")
    catalog.deployments.deploy(champion, 2, "me")
    catalog.deployments.deploy(north, 1, "me")
    done = register(settings, ["bright"])
    assert done.updated == ["bright:1", "bright:2"]
    assert done.aliases == ["u2net-bright@champion", "u2net-bright@champion_AT_north"]
    assert int(client.get_model_version_by_alias("u2net-bright", "champion").version) == 2
    there = client.get_model_version("u2net-bright", "1")
    assert there.tags["u2net.test.overall.dice"] == "0.875"
    assert client.get_run(there.run_id).data.metrics["bright/test/classes/organ/hd95_mm"] == 2.5

    catalog.deployments.deploy(champion, 1, "me")
    assert register(settings, ["bright"]).aliases == ["u2net-bright@champion"]
    assert int(client.get_model_version_by_alias("u2net-bright", "champion").version) == 1


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
