"""`u2net model deploy`, `withdraw` and the like: what is in service, and what was."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from u2net_platform.cli.home import open_catalog
from u2net_platform.cli.output import Csv, Json, Limit, Offset, emit, emit_rows, talk

if TYPE_CHECKING:
    from u2net_platform.catalog.records import DeploymentRecord, Slot

Domain = Annotated[str, typer.Argument(help="A domain.")]
Version = Annotated[str, typer.Argument(help="A version, as heart:3; a domain means its newest.")]
Alias = Annotated[str, typer.Option("--as", help="Under which name it is in service.")]
Site = Annotated[str | None, typer.Option(help="At this site alone; else everywhere.")]
By = Annotated[str | None, typer.Option(help="Who does this; else the user of this machine.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]


def deploy(
    version: Version,
    number: Annotated[
        int | None, typer.Argument(min=1, help="Of the version, if not as spleen:7.")
    ] = None,
    alias: Alias = "champion",
    site: Site = None,
    reason: Reason = "",
    by: By = None,
    force: Annotated[bool, typer.Option("--force", help="Also if never evaluated.")] = False,
    _json: Json = False,
) -> None:
    """Put a version into service under an alias. It has to be evaluated: on its test cases,
    or on other data whose scores were kept.

    \b
    Examples:
      u2net model deploy heart:3
      u2net model deploy heart 3 --as challenger --site north --reason "trial of May"
      u2net predict --domain heart@champion -i scan.nii.gz -o labels.nii.gz
    """
    catalog, began = open_catalog(), datetime.now(UTC)
    record = catalog.find(version if number is None else f"{version}:{number}")
    slot = _slot(record.domain, alias, site)
    done = catalog.deployments.deploy(slot, record.number, _actor(by), reason, force)
    _emit(done, began)


def rollback(
    domain: Domain,
    alias: Alias = "champion",
    site: Site = None,
    reason: Reason = "",
    by: By = None,
    _json: Json = False,
) -> None:
    """Put back the version that was in service before; if there was none, nothing is in service.

    \b
    Examples:
      u2net model rollback heart
      u2net model rollback heart --site north --reason "misses small atria"
    """
    slot, began = _slot(domain, alias, site), datetime.now(UTC)
    _emit(open_catalog().deployments.rollback(slot, _actor(by), reason), began)


def withdraw(
    domain: Domain,
    alias: Alias = "champion",
    site: Site = None,
    reason: Reason = "",
    by: By = None,
    _json: Json = False,
) -> None:
    """Take a version out of service; a site has what is in service everywhere again.

    \b
    Examples:
      u2net model withdraw heart --reason "a patient withdrew consent"
      u2net model withdraw heart --site north
    """
    slot, began = _slot(domain, alias, site), datetime.now(UTC)
    _emit(open_catalog().deployments.withdraw(slot, _actor(by), reason), began)


def promote(
    version: Version,
    rule: Annotated[
        str,
        typer.Option(
            "--if",
            help="Conditions on its test scores, joined by `and`: dice, hd95_mm or surface_dice, "
            "of one class as posterior.dice; `current` is the score of what is in service.",
        ),
    ],
    on: Annotated[
        str | None, typer.Option(help="On these scores instead: of `evaluate --keep NAME`.")
    ] = None,
    alias: Alias = "champion",
    site: Site = None,
    by: By = None,
    _json: Json = False,
) -> None:
    """Deploy a version if its scores meet a rule; else end with code 6, and say which do not.

    \b
    Examples:
      u2net model promote heart:3 --if "dice >= 0.9"
      u2net model promote heart:3 --if "dice >= 0.85" --on ward_north
      u2net model promote hippocampus --if "dice >= current and posterior.hd95_mm < 3"
    """
    from u2net_platform.workflows.promote import promote as promote_if

    catalog, began = open_catalog(), datetime.now(UTC)
    record = catalog.find(version)
    slot = _slot(record.domain, alias, site)
    _emit(promote_if(catalog, record, slot, rule, _actor(by), on), began)


def history(
    domain: Annotated[str | None, typer.Argument(help="Only this domain's.")] = None,
    alias: Annotated[str | None, typer.Option("--as", help="Only under this name.")] = None,
    site: Annotated[str | None, typer.Option(help="Only at this site.")] = None,
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """List all changes of what is in service: who, when, why, from which version, to which.

    \b
    Examples:
      u2net model history heart
      u2net model history --site north --csv
    """
    from u2net_platform.catalog.records import Page

    page = Page(limit=limit, offset=offset)
    changes = open_catalog().deployments.history(domain, alias, site, page)
    columns = {
        "when (UTC)": lambda one: f"{one.created_at:%Y-%m-%d %H:%M:%S}",
        "slot": lambda one: one.slot,
        "action": lambda one: one.action + (" (forced)" if one.forced else ""),
        "from": lambda one: one.previous or "-",
        "to": lambda one: one.version or "-",
        "who": lambda one: one.actor,
        "why": lambda one: one.reason or "-",
    }
    emit_rows(changes, columns, csv, limit, offset)


def _slot(domain: str, alias: str, site: str | None) -> Slot:
    from u2net_platform.catalog.records import Slot

    return Slot(domain=domain, alias=alias, site=site)


def _actor(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _emit(done: DeploymentRecord, began: datetime) -> None:
    """Tell the user, then MLflow; what is older than the command was in service already."""
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.register import keep_registered

    emit(done, _already if done.created_at < began else _sentence)
    keep_registered(Settings(), [done.slot.domain], talk)


def _already(done: DeploymentRecord) -> str:
    since = f"{done.created_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{done.version} is already in service as {done.slot} since {since}"


def _in_its_place(slot: Slot) -> str:
    """Of a site that has no version of its own any more."""
    from u2net_platform.errors import UnknownRecord

    try:
        return f"; {open_catalog().deployments.in_service(slot).version}, as everywhere, is there"
    except UnknownRecord:
        return ""


def _sentence(done: DeploymentRecord) -> str:
    if done.version is None:
        return f"{done.previous} is no longer in service as {done.slot}{_in_its_place(done.slot)}"
    instead = f", in place of {done.previous}" if done.previous else ""
    marked = "; it was never evaluated" if done.forced else ""
    return f"{done.version} is in service as {done.slot}{instead}{marked}"
