"""`u2net catalog`: questions about what is in service, and the database's own upkeep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.home import open_catalog, open_home
from u2net_platform.cli.output import Csv, Json, Limit, Offset, emit, emit_rows, talk
from u2net_platform.cli.run_options import finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from u2net_platform.catalog.records import Page, RunRecord

app = typer.Typer(help="The catalog: questions to it, and its upkeep.", no_args_is_help=True)
query = typer.Typer(help="Questions to the catalog.", no_args_is_help=True)
app.add_typer(query, name="query")

DEPLOYED = {
    "domain": lambda one: one.slot.domain,
    "as": lambda one: one.slot.alias,
    "site": lambda one: one.slot.site or "everywhere",
    "version": lambda one: one.version + (" (forced)" if one.forced else ""),
    "backbone": lambda one: one.backbone_digest[:12],
    "since (UTC)": lambda one: f"{one.created_at:%Y-%m-%d %H:%M}",
    "who": lambda one: one.actor,
}
BY = {True: "its own run", False: "what it builds on", None: "cannot say"}
LINEAGE = {
    "version": lambda one: one.version,
    "by": lambda one: BY[one.directly],
    "run": lambda one: one.run_id,
    "backbone": lambda one: one.backbone_digest[:12],
    "made (UTC)": lambda one: f"{one.created_at:%Y-%m-%d %H:%M}",
}

RUNS: dict[str, Callable[[RunRecord], object]] = {
    "run": lambda one: one.id,
    "kind": lambda one: one.kind,
    "mode": lambda one: one.mode,
    "domains": lambda one: ", ".join(one.domains),
    "fold": lambda one: "all" if one.fold is None else one.fold,
    "status": lambda one: one.status,
    "steps": lambda one: one.step,
    "ended (UTC)": lambda one: f"{one.ended_at:%Y-%m-%d %H:%M}" if one.ended_at else "-",
}


@app.command()
def upgrade(_json: Json = False) -> None:
    """Bring the catalog's tables to this program's revision; a new database gets them.

    \b
    Examples:
      u2net catalog upgrade
    """
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings

    revision = Catalog.upgrade(Settings().database_url)
    emit(revision, lambda data: f"catalog at revision {data.current}")


@app.command()
def status(_json: Json = False) -> None:
    """Tell the revision of the catalog's database, and the one that this program works with.

    \b
    Examples:
      u2net catalog status --json
    """
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings

    revision = Catalog.revision(Settings().database_url)
    emit(
        revision,
        lambda data: f"database at revision {data.current or 'none'}, program at {data.head}",
    )


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell, and remove nothing.")] = False,
    grace_hours: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Keep what was written within so many hours."),
    ] = 24.0,
    prepared_days: Annotated[
        float | None,
        typer.Option(
            min=1,
            callback=finite,
            help="Remove prepared cases too that no run used for so many days.",
        ),
    ] = None,
    _json: Json = False,
) -> None:
    """Remove weights that no version names, and what killed processes left half-written.

    With --prepared-days also prepared cases; a run that needs them again prepares them.

    \b
    Examples:
      u2net catalog gc --dry-run
      u2net catalog gc --prepared-days 30
    """
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.collect_garbage import collect_garbage

    found = collect_garbage(Settings(), dry_run, grace_hours, prepared_days)
    verb = "could be removed" if dry_run else "removed"

    def sentence(_: Any) -> str:
        names = "".join(f"{one.path}\n" for one in found)
        size = sum(one.size for one in found) / 2**20
        return f"{names}{len(found)} files, {size:.1f} MiB, {verb}"

    emit({"removed": not dry_run, "files": found}, sentence)


@query.command()
def deployed(
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    alias: Annotated[str | None, typer.Option("--as", help="Only under this name.")] = None,
    site: Annotated[
        str | None, typer.Option(help="At this site, where it may be what is everywhere.")
    ] = None,
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """Which domains are in service where, in which version, on which backbone.

    \b
    Examples:
      u2net catalog query deployed
      u2net catalog query deployed --site north --csv
    """
    found = open_catalog().deployments.current(domain, alias, site, page=_page(limit, offset))
    if not found:
        talk("Nothing is in service of that domain, name and site.")
    emit_rows(found, DEPLOYED, csv, limit, offset)


@query.command()
def backbone(
    version: Annotated[str, typer.Argument(help="A version on it; or its digest's beginning.")],
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """What is in service on a backbone: what would change if it were replaced.

    \b
    Examples:
      u2net catalog query backbone heart@champion
      u2net catalog query backbone 6e179598 --json
    """
    catalog = open_catalog()
    is_digest = re.fullmatch(r"[0-9a-f]{6,64}", version) is not None
    digest = version if is_digest else catalog.find(version).backbone_digest
    found = catalog.deployments.current(backbone=digest, page=_page(limit, offset))
    if not catalog.versions.has_backbone(digest):
        talk(f"No backbone here has a digest that begins with {digest}.")
    emit_rows(found, DEPLOYED, csv, limit, offset)


@query.command()
def data(
    data: Annotated[
        str, typer.Argument(help="A data set's digest, or its beginning; or a version's own data.")
    ],
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """Which versions learned from a data set: by their own run, or through their backbone.

    \b
    Examples:
      u2net catalog query data heart:3
      u2net catalog query data e8745604 --csv
    """
    from u2net_platform.errors import UnknownRecord

    catalog = open_catalog()
    digest: str | None = data
    if not re.fullmatch(r"[0-9a-f]{6,64}", data):
        record = catalog.find(data)
        prints = catalog.runs.get(record.run_id).fingerprints
        digest = prints.get(record.domain, {}).get("data_digest")
    if digest is None:
        raise UnknownRecord(f"The run of {data} has noted no data", "Name the data by a digest.")
    found = catalog.versions.that_saw(digest, _page(limit, offset))
    if not found and not offset:
        talk(f"No version here learned from data whose digest begins with {digest}.")
    emit_rows(found, LINEAGE, csv, limit, offset)


@query.command()
def case(
    domain: Annotated[str, typer.Argument(help="A domain of the catalog.")],
    case: Annotated[str, typer.Argument(help="A case's name, or a pattern: 'P07_*'.")],
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """Which versions learned from a patient's case: by their own run, or through their backbone.

    What came in a bundle or of a federation cannot say, nor what builds on it.

    \b
    Examples:
      u2net catalog query case heart P07_early
      u2net catalog query case heart 'P07_*' --csv
    """
    catalog = open_catalog()
    catalog.domains.get(domain)
    found = catalog.versions.that_saw_case(domain, case, _page(limit, offset))
    if not catalog.versions.knows_case(domain, case):
        talk(f"No run here has noted a case {case} of {domain}: is that its name in the data set?")
    elif not found and not offset:
        talk(f"No version here learned from a case {case} of {domain}.")
    emit_rows(found, LINEAGE, csv, limit, offset)


@query.command()
def runs(
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """What was trained, the latest first, and how it ended; what was interrupted can go on.

    \b
    Examples:
      u2net catalog query runs --limit 5
    """
    from u2net_platform.workflows.request import is_abandoned

    settings, catalog = open_home()
    found = [
        one.model_copy(update={"status": "interrupted"})
        if one.status == "running" and is_abandoned(settings, one.id)
        else one
        for one in catalog.runs.list(_page(limit, offset))
    ]
    emit_rows(found, RUNS, csv, limit, offset)


@query.command()
def site(
    site: Annotated[str, typer.Argument(help="A site of a federation.")],
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """Which versions learned from a site: by their own run, or through their backbone.

    \b
    Examples:
      u2net catalog query site north
    """
    catalog = open_catalog()
    found = catalog.versions.that_saw_site(site, _page(limit, offset))
    if not found and site not in (known := catalog.federations.known_sites()):
        talk(f"No site {site} is known here. Known are: {', '.join(known) or 'none'}.")
    emit_rows(found, LINEAGE, csv, limit, offset)


def _page(limit: int, offset: int) -> Page:
    from u2net_platform.catalog.records import Page

    return Page(limit=limit, offset=offset)
