"""Versions in MLflow's registry: `u2net-<domain>`, with tags that lead back to the catalog."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from u2net_platform.settings import Settings
from u2net_platform.tracking.mlflow_recorder import answering, client_of, find_run, new_run

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

VERSION_TAG = "u2net.version"
IDENTITY = (
    "u2net.run",
    "u2net.domain_digest",
)  # tags: the same in two catalogs if it is one version
VERSIONS_PER_PAGE = 1000


@dataclass(frozen=True)
class Entry:
    """What the registry is told of a version.

    run: the id of its run in the catalog; mlflow_run_id: in MLflow, where that is known.
    tags: without `u2net.version`, which is `reference`. metrics: by name, as `test/overall/dice`.
    """

    domain: str
    number: int
    run: str
    mlflow_run_id: str | None
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def reference(self) -> str:
        return f"{self.domain}:{self.number}"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model: its number there, and its tags."""

    number: str
    tags: Mapping[str, str]
    run_id: str


@dataclass(frozen=True)
class Alias:
    """A place in service, and the number in the registry of the version there, if there is one."""

    domain: str
    alias: str
    site: str | None
    number: str | None

    @property
    def name(self) -> str:
        """`champion`; at a site `champion_AT_north`: capitals are in no alias, so it is unique."""
        return f"{self.alias}_AT_{self.site}" if self.site else self.alias


class Registry:
    """MLflow's registry of models.

    Raises:
        TrackingDown: the server does not answer, now or at any call.
        CatalogUnreachable: the store refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._uri = settings, settings.mlflow_uri
        with answering(self._uri):
            self._client = client_of(self._uri)

    def versions(self, domain: str) -> dict[str, Registered]:
        """The versions of a domain that are registered, by reference; another catalog's, too."""
        found: dict[str, Registered] = {}
        token = None
        while True:
            with answering(self._uri):
                page = self._client.search_model_versions(
                    f"name = '{model_name(domain)}'", VERSIONS_PER_PAGE, page_token=token
                )
            for one in page:
                if VERSION_TAG in one.tags:
                    found[one.tags[VERSION_TAG]] = _registered(one)
            token = page.token
            if not token:
                return found

    def register(self, entry: Entry, loader_module: str, data: Path) -> Registered:
        """Make a version of `u2net-<domain>` whose model is what `loader_module` makes of a folder.

        The model lies with the artifacts of the version's run, under its domain.
        """
        from mlflow.exceptions import MlflowException

        name, place = model_name(entry.domain), _place(entry)
        with tempfile.TemporaryDirectory() as folder, answering(self._uri):
            model = _save_model(Path(folder) / "model", loader_module, data)
            run_id = self._run_of(entry)
            self._client.log_artifacts(run_id, str(model), place)
            try:
                self._client.create_registered_model(name)
            except MlflowException:
                self._client.get_registered_model(name)  # it is there, or this raises again
            uri = self._client.get_run(run_id).info.artifact_uri
            tags = dict(entry.tags) | {VERSION_TAG: entry.reference}
            self._log_metrics(run_id, entry)  # first: a version that has its tags lacks nothing
            made = self._client.create_model_version(name, f"{uri}/{place}", run_id, tags=tags)
        return _registered(made)

    def is_other(self, entry: Entry, known: Mapping[str, Registered]) -> bool:
        """Whether what is registered under its name is another: each catalog has a `heart:1`."""
        there = known.get(entry.reference)
        return there is not None and any(there.tags.get(t) != entry.tags[t] for t in IDENTITY)

    def lacks(self, entry: Entry, known: Registered) -> dict[str, str]:
        """The tags that a registered version does not have, or has otherwise."""
        return {key: text for key, text in entry.tags.items() if known.tags.get(key) != text}

    def update(self, entry: Entry, known: Registered, data: Path) -> None:
        """Bring files, metrics and tags of a registered version up to date.

        The tags come last: until they are there, all of it is sent again.
        """
        place = f"{_place(entry)}/data/{data.name}"
        with answering(self._uri):
            self._client.log_artifacts(known.run_id, str(data), place)
        self._log_metrics(known.run_id, entry)
        with answering(self._uri):
            for key, text in self.lacks(entry, known).items():
                name = model_name(entry.domain)
                self._client.set_model_version_tag(name, known.number, key, text)

    def set_alias(self, alias: Alias) -> bool:
        """Let an alias name what is in service, or nothing; whether it did not do so before.

        Raises:
            CatalogUnreachable: MLflow keeps names such as `latest` for itself.
        """
        name = model_name(alias.domain)
        with answering(self._uri):
            there = self._client.get_registered_model(name).aliases.get(alias.name)
            if (there if there is None else str(there)) == alias.number:
                return False
            if alias.number is None:
                self._client.delete_registered_model_alias(name, alias.name)
            else:
                self._client.set_registered_model_alias(name, alias.name, alias.number)
        return True

    def _run_of(self, entry: Entry) -> str:
        """The version's run in MLflow; one that MLflow never had is made, and is over."""
        found = find_run(self._client, entry.run, entry.mlflow_run_id)
        if found is None:
            found = new_run(self._client, self._settings, entry.run)
            self._client.set_terminated(found)
        return found

    def _log_metrics(self, run_id: str, entry: Entry) -> None:
        """Test scores and the like, beside the curves of the run; the newest stand."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [
            Metric(f"{entry.domain}/{key}", value, now_ms, entry.number)
            for key, value in entry.metrics.items()
        ]
        with answering(self._uri):
            if points:
                self._client.log_batch(run_id, metrics=points)


def model_name(domain: str) -> str:
    """The name of a domain's registered model."""
    return f"u2net-{domain}"


def _place(entry: Entry) -> str:
    """Of the model among the artifacts of its run."""
    return f"{entry.domain}/model"


def _registered(found: ModelVersion) -> Registered:
    return Registered(str(found.version), dict(found.tags), str(found.run_id))


def _save_model(target: Path, loader_module: str, data: Path) -> Path:
    """A model of flavour `python_function`: data and the name of a module, nothing pickled."""
    import mlflow.pyfunc

    with warnings.catch_warnings():
        # It asks for an example of an input, which would be a patient's image.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            str(target),
            loader_module=loader_module,
            data_path=str(data),
            signature=_signature(),
            # Said, as MLflow would else import the model in a process of its own to find out.
            pip_requirements=[f"u2net-platform=={version('u2net-platform')}"],
        )
    return target


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text = DataType.string
    return ModelSignature(Schema([ColSpec(text, "image"), ColSpec(text, "output", required=False)]))
