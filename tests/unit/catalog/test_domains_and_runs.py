from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import Conflict, UnknownDomain, UnknownRecord

BuildRun = Callable[..., RunRecord]
BuildVersion = Callable[..., NewVersion]


def test_a_domain_is_read_back(catalog: Catalog) -> None:
    added = catalog.domains.add({"name": "heart"}, "heart", "a" * 64, "bundled", "/data/Task02")
    assert catalog.domains.get("heart") == added
    assert (added.spec, added.data_dir) == ({"name": "heart"}, "/data/Task02")


def test_domains_are_listed_by_name(trained: Catalog) -> None:
    assert [domain.name for domain in trained.domains.list()] == ["heart", "liver"]


def test_the_digest_of_a_stored_spec_is_the_specs_own(catalog: Catalog) -> None:
    spec = DomainSpec.load(Path(__file__).parents[3] / "plugins" / "heart" / "domain.toml")
    record = catalog.domains.add(spec.document(), "heart", "a" * 64, "bundled")
    assert record.spec_digest == spec.digest


def test_a_domain_added_again_takes_the_new_spec_and_its_versions_keep_theirs(
    trained: Catalog, new_version: BuildVersion
) -> None:
    trained.domains.add({"name": "heart"}, "heart", "e" * 64, "folder", "/data")
    published = trained.versions.publish(new_version())
    trained.domains.add({"name": "heart", "changed": True}, "heart", "e" * 64, "folder")
    domain = trained.domains.get("heart")
    assert domain.spec["changed"] is True
    assert (domain.source, domain.data_dir) == ("folder", "/data")
    assert trained.versions.get("heart").spec == published.spec != domain.spec


def test_a_domain_with_history_is_not_removed(trained: Catalog, new_version: BuildVersion) -> None:
    trained.versions.publish(new_version())
    with pytest.raises(Conflict, match="1 versions and 1 runs"):
        trained.domains.remove("heart")
    trained.domains.add({"name": "spleen"}, "spleen", "a" * 64, "bundled")
    trained.domains.remove("spleen")
    with pytest.raises(UnknownDomain, match="spleen"):
        trained.domains.get("spleen")


def test_a_run_of_no_fold_is_read_back(trained: Catalog, new_run: BuildRun) -> None:
    trained.runs.create(new_run(id="run-2", fold=None))
    assert [trained.runs.get(name).fold for name in ("run-1", "run-2")] == [0, None]


def test_a_run_is_read_back_with_domains_in_order(catalog: Catalog, new_run: BuildRun) -> None:
    for name in ("heart", "liver", "spleen"):
        catalog.domains.add({"name": name}, name, "a" * 64, "bundled")
    run = new_run(
        domains=("spleen", "heart", "liver"),
        fingerprints={"heart": {"data_digest": "f" * 64}},
        mlflow_run_id="m1",
    )
    assert catalog.runs.create(run) == run
    assert catalog.runs.get("run-1") == run


def test_a_run_names_the_version_that_it_started_from(
    trained: Catalog, new_run: BuildRun, new_version: BuildVersion
) -> None:
    trained.versions.publish(new_version())
    trained.versions.publish(new_version())
    trained.runs.create(new_run(id="run-2", kind="adapt", base_version="heart:2"))
    assert trained.runs.get("run-2").base_version == "heart:2"
    assert trained.runs.get("run-1").base_version is None
    with pytest.raises(UnknownRecord, match="version 9"):
        trained.runs.create(new_run(id="run-3", base_version="heart:9"))


def test_a_run_ends_and_may_go_on(trained: Catalog) -> None:
    ended = trained.runs.update("run-1", "interrupted", step=40)
    assert (ended.status, ended.step) == ("interrupted", 40)
    assert ended.ended_at is not None and ended.ended_at >= ended.started_at
    resumed = trained.runs.update("run-1", "running", step=40)
    assert resumed.ended_at is None
    assert trained.runs.get("run-1") == resumed


def test_the_latest_run_is_listed_first(trained: Catalog, new_run: BuildRun) -> None:
    early = datetime(2020, 1, 1, tzinfo=UTC)
    trained.runs.create(new_run(id="old", started_at=early))
    assert [run.id for run in trained.runs.list()] == ["run-1", "old"]


def test_a_run_is_stored_once_and_only_of_known_domains(
    trained: Catalog, new_run: BuildRun
) -> None:
    with pytest.raises(Conflict, match="run-1"):
        trained.runs.create(new_run())
    with pytest.raises(UnknownDomain, match="kidney"):
        trained.runs.create(new_run(id="run-2", domains=("kidney",)))
    with pytest.raises(UnknownRecord, match="run-2"):
        trained.runs.get("run-2")


def test_a_number_that_json_cannot_hold_is_refused(new_version: BuildVersion) -> None:
    with pytest.raises(ValidationError, match="metrics"):
        new_version(metrics={"dice": float("nan")})


@pytest.mark.parametrize("url", ["PostgreSQL"], indirect=True)
@pytest.mark.parametrize("change", [{"seed": 2**31}, {"device": "x" * 65}])
def test_a_value_that_a_database_cannot_hold_is_refused_as_such(
    trained: Catalog, new_run: BuildRun, change: dict[str, object]
) -> None:
    with pytest.raises(Conflict, match="cannot hold"):
        trained.runs.create(new_run(id="run-2", **change))
