"""`u2net model`: the versions that were published, and what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.output import Commands, Json, emit

if TYPE_CHECKING:
    from rich.table import Table

    from u2net_platform.catalog.records import VersionRecord

app = typer.Typer(cls=Commands, help="Published versions.", no_args_is_help=True)


@app.command("list")
def list_versions(
    domain: Annotated[str | None, typer.Argument(help="Only this domain's.")] = None,
    _json: Json = False,
) -> None:
    """List versions: which domain, which backbone, which run, how good.

    \b
    Examples:
      u2net model list
      u2net model list heart --json
    """
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings

    catalog = Catalog.open(Settings().database_url)
    if domain is not None:
        catalog.domains.get(domain)
    emit(catalog.versions.list(domain), version_table)


@app.command("show")
def show(
    version: Annotated[str, typer.Argument(help="A domain, or a version of it: heart, heart:3.")],
    _json: Json = False,
) -> None:
    """Show the whole of a version: digests, plan, run, sites of its backbone, metrics.

    \b
    Examples:
      u2net model show heart
      u2net model show heart:3 --json
    """
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.versions import parse_reference

    catalog = Catalog.open(Settings().database_url)
    record = catalog.versions.get(*parse_reference(version))
    sharing = [
        other.reference
        for other in catalog.versions.by_backbone(record.backbone_digest)
        if other.reference != record.reference
    ]
    run = catalog.runs.get(record.run_id)
    emit({"version": record, "run": run, "same_backbone": sharing}, _details)


def version_table(versions: Sequence[VersionRecord]) -> Table:
    from rich.table import Table

    table = Table("version", "backbone", "domain", "run", "validation Dice", "test Dice", "made")
    for one in versions:
        table.add_row(
            one.reference,
            one.backbone_digest[:12],
            one.domain_digest[:12],
            one.run_id,
            _score(one.metrics.get("validation", {}).get("dice")),
            _score(one.metrics.get("test", {}).get("overall", {}).get("dice")),
            f"{one.created_at:%Y-%m-%d %H:%M}",
        )
    return table


def _details(data: dict[str, Any]) -> Table:
    from rich.table import Table

    one, run = data["version"], data["run"]
    table = Table("", one.reference)
    rows = {
        "backbone": one.backbone_digest,
        "domain weights": one.domain_digest,
        "spec": one.spec_digest,
        "plan": one.plan_digest,
        "same backbone": ", ".join(data["same_backbone"]) or "-",
        "run": f"{run.id} ({run.kind}, {run.mode}, fold {run.fold}, seed {run.seed})",
        "trained with": ", ".join(run.domains),
        "from": run.base_version or "-",
        "data": str(run.fingerprints.get(one.domain, {}).get("data_digest", "-")),
        "MLflow run": run.mlflow_run_id or "-",
        "patch z y x": " ".join(map(str, one.plan["patch_zyx"])),
        "spacing z y x, mm": " ".join(f"{side:g}" for side in one.plan["spacing_zyx_mm"]),
        "metrics": str(one.metrics),
    }
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
