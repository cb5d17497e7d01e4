"""What a federated run is asked to do, as its folder keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import LARGEST
from u2net_platform.errors import InvalidFederation, InvalidRecipe, NothingToResume
from u2net_platform.files import exclusive, write_text
from u2net_platform.settings import Settings
from u2net_platform.training.recipe import Recipe
from u2net_platform.workflows.request import LOCK_FILE, new_run_id

REQUEST_FILE = "federation.json"
CHANGEABLE = frozenset({"quorum", "attempts", "round_minutes", "wait_minutes"})  # by a resume


class Rules(BaseModel):
    """How updates are weighed, and which are left out.

    weigh_by: what a site counts with, see `weight_of`; `equal` lets every site count the same.
    cap: a site counts with no more than this, so that one large site does not decide alone.
    largest_update: bound on the norm of an owner's update, as a multiple of the norm of the weights
        that it changes.
    server_momentum: the backbone moves by a running sum of updates that decays by this factor.
        Source: Hsu, Qi, Brown, arXiv 1909.06335.
    server_rate: the backbone moves by so many times the weighted mean; by `own_rate` if None.
        Source: Reddi et al., arXiv 2003.00295 (eta, with SGD at the server).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weigh_by: Literal["examples", "steps", "equal"] = "steps"
    cap: int = Field(default=1000, ge=1)
    largest_update: float = Field(default=2.0, gt=0)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)
    server_rate: float | None = Field(default=None, gt=0, le=100)


class FederationRequest(BaseModel):
    """All that decides a federated run; kept in its folder, so that it can go on.

    sites: who may take part, by name. quorum: a round counts with so many contributions.
    attempts: how often a round is tried before the run fails. wait_minutes: for sites to be there,
    at the start and before every round. base: the version whose backbone it begins with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: tuple[str, ...] = Field(min_length=1)
    recipe: Recipe
    rounds: int = Field(ge=1)
    cycles: int = Field(ge=1)
    rules: Rules = Rules()
    quorum: int = Field(ge=1)
    attempts: int = Field(default=3, ge=1)
    proximal: float = Field(default=0.0, ge=0)
    seed: int = Field(default=0, ge=0, le=LARGEST)
    fold: int | None = 0
    base: str | None = None
    round_minutes: float = Field(default=60.0, gt=0)
    wait_minutes: float = Field(default=5.0, ge=0)

    @property
    def whole_recipe(self) -> Recipe:
        """The recipe of all rounds together: the learning rate falls over the whole run.

        A site's domains take turns: so one that several share makes as many steps at each.
        """
        whole = {"cycles": self.rounds * self.cycles, "temperature": None}
        return self.recipe.model_copy(update=whole)


def federated_recipe(source: str, assignments: Sequence[str], batch_voxels: int | None) -> Recipe:
    """`Recipe.load`, for a federation.

    Raises:
        InvalidRecipe: as there; or what is assigned is not the recipe's to say here.
    """
    for text in assignments:
        if text.partition("=")[0].strip() in {"cycles", "temperature"}:
            raise InvalidRecipe(
                f"{text!r} has no effect in a federation: it makes --rounds times --cycles, and"
                " its domains take turns",
                "Leave it out.",
            )
    return Recipe.load(source, assignments, batch_voxels=batch_voxels)


def new_run(settings: Settings, request: FederationRequest) -> str:
    """Write down what is to be done; returns the id of the run.

    Raises:
        InvalidFederation: it cannot come to an end.
        UnknownDomain, UnknownRecord: there is no such base.
    """
    _check_quorum(request)
    if request.base is not None:
        base = Catalog.open(settings.database_url).find(request.base).reference
        request = request.model_copy(update={"base": base})
    run_id = new_run_id()
    directory = settings.runs_dir / run_id
    write_text(directory / REQUEST_FILE, request.model_dump_json(indent=2))
    return run_id


def change(settings: Settings, run_id: str, changes: Mapping[str, int | float]) -> None:
    """Let a run that has stopped go on with another quorum, or another patience with its sites.

    changes: values of fields that are `CHANGEABLE`.

    Raises:
        NothingToResume: there is no such federated run.
        InvalidFederation: it could not come to an end.
        RunBusy: it is at work.
    """
    assert changes.keys() <= CHANGEABLE
    request = request_of(settings, run_id).model_copy(update=dict(changes))
    _check_quorum(request)
    directory = settings.runs_dir / run_id
    with exclusive(directory / LOCK_FILE):
        write_text(directory / REQUEST_FILE, request.model_dump_json(indent=2))


def _check_quorum(request: FederationRequest) -> None:
    if request.quorum > len(request.sites):
        raise InvalidFederation(
            f"The quorum is {request.quorum} of {len(request.sites)} sites",
            "Ask for fewer, or name more sites.",
        )


def request_of(settings: Settings, run_id: str) -> FederationRequest:
    """Raises NothingToResume: there is no such federated run."""
    file = settings.runs_dir / run_id / REQUEST_FILE
    try:
        return FederationRequest.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValidationError) as error:
        raise NothingToResume(
            f"{run_id} is no federated run of this release: {file} cannot be read",
            "See: u2net federate status",
        ) from error


def how_to_resume(run_id: str) -> str:
    """The commands, for a hint."""
    return (
        f"u2net federate run --sites FOLDER --resume {run_id}; at sites on other machines: "
        f"u2net federation resume {run_id}"
    )
