"""`u2net model`: the versions that were published, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.home import open_catalog, open_home
from u2net_platform.cli.output import (
    Csv,
    Json,
    Limit,
    Offset,
    emit,
    emit_rows,
    progress,
)

if TYPE_CHECKING:
    from rich.table import Table

    from u2net_platform.catalog.records import VersionRecord


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _shown(metrics: dict[str, Any]) -> str:
    """Means over cases of each class; other figures as they are."""
    if "classes" not in metrics:
        return ", ".join(f"{key} {value}" for key, value in metrics.items())
    lines = [
        f"{name}: Dice {_score(one.get('dice'))}, HD95 {_score(one.get('hd95_mm'))} mm,"
        f" surface Dice {_score(one.get('surface_dice'))}"
        for name, one in [*metrics["classes"].items(), ("mean", metrics["overall"])]
    ]
    cases, failures = (metrics.get(key, "-") for key in ("cases", "failures"))
    return "\n".join([*lines, f"cases: {cases}, failed: {failures}"])


VERSIONS: dict[str, Callable[[VersionRecord], object]] = {
    "version": lambda one: one.reference,
    "backbone": lambda one: one.backbone_digest[:12],
    "domain": lambda one: one.domain_digest[:12],
    "run": lambda one: one.run_id,
    "validation Dice": lambda one: _score(one.metrics.get("validation", {}).get("dice")),
    "test Dice": lambda one: _score(one.metrics.get("test", {}).get("overall", {}).get("dice")),
    "made (UTC)": lambda one: f"{one.created_at:%Y-%m-%d %H:%M}",
}

app = typer.Typer(help="Published versions.", no_args_is_help=True)


@app.command("list")
def list_versions(
    domain: Annotated[str | None, typer.Argument(help="Only this domain's.")] = None,
    limit: Limit = 100,
    offset: Offset = 0,
    csv: Csv = False,
    _json: Json = False,
) -> None:
    """List versions: which domain, which backbone, which run, how good.

    \b
    Examples:
      u2net model list
      u2net model list heart --json
      u2net model list --csv
    """
    from u2net_platform.catalog.records import Page

    catalog = open_catalog()
    versions = catalog.versions.list(domain, Page(limit=limit, offset=offset))
    emit_rows(versions, VERSIONS, csv, limit, offset)


@app.command("show")
def show(
    version: Annotated[
        str, typer.Argument(help="A domain, or a version of it: heart, heart:3, heart@champion.")
    ],
    _json: Json = False,
) -> None:
    """Show the whole of a version: digests, plan, run, sites of its backbone, metrics.

    \b
    Examples:
      u2net model show heart
      u2net model show heart:3 --json
    """
    catalog = open_catalog()
    record = catalog.find(version)
    sharing = [
        other.reference
        for other in catalog.versions.by_backbone(record.backbone_digest)
        if other.reference != record.reference
    ]
    run = catalog.runs.get(record.run_id)
    # A bundle brings the names, not the rounds.
    noted = record.metrics.get("federation", {}).get("sites", {})
    data = {"version": record, "run": run, "same_backbone": sharing}
    emit(data | {"sites": catalog.federations.sites(run.id) or noted}, _details)


@app.command("verify")
def verify_versions(
    version: Annotated[
        str | None,
        typer.Argument(help="It and all others on its backbone; every version, if none is named."),
    ] = None,
    _json: Json = False,
) -> None:
    """Prove versions unchanged: digests of their weights, and of what they make of a stored probe.

    \b
    Examples:
      u2net model verify
      u2net model verify heart:3 --json
    """
    from u2net_platform.catalog.weights import WeightStore
    from u2net_platform.errors import DigestMismatch
    from u2net_platform.workflows.verify import verify

    settings, catalog = open_home()
    if version is None:
        records = catalog.versions.list()
    else:
        records = catalog.versions.by_backbone(catalog.find(version).backbone_digest)
    with progress("Verifying", len(records)) as done:
        found = verify(WeightStore(settings.weights_dir), records, done)
    faulty = [one for one in found if one.fault]
    failure = DigestMismatch(
        f"{len(faulty)} of {len(found)} versions are not what they were:\n"
        + "\n".join(f"{one.version}: {one.fault}" for one in faulty),
        "Restore the files from a backup, or train again.",
    )
    emit({"versions": found}, _verifications, failure if faulty else None)


@app.command("check")
def check(
    backbone: Annotated[str, typer.Argument(help="A version, for its backbone: heart:3.")],
    domain: Annotated[str, typer.Argument(help="A version, for its domain's part: liver:1.")],
    _json: Json = False,
) -> None:
    """Say whether the domain's part of one version fits the backbone of another; and if not, why.

    \b
    Examples:
      u2net model check heart:3 liver:1
    """
    from u2net_platform.errors import IncompatibleParts
    from u2net_platform.workflows.compatibility import misfits

    catalog = open_catalog()
    base, part = catalog.find(backbone), catalog.find(domain)
    reasons = misfits(part, base, part.reference)
    failure = IncompatibleParts(
        f"{part.reference} does not fit the backbone of {base.reference}: {'; '.join(reasons)}",
        f"Train the domain on it: u2net adapt {part.domain} --from {base.reference}",
    )
    data = {"backbone": base.reference, "domain": part.reference, "reasons": reasons}
    sentence = f"{part.reference} {'does not fit' if reasons else 'fits'} {base.reference}"
    emit(data, lambda _: sentence, failure if reasons else None)


@app.command("parameters")
def parameters(
    domains: Annotated[
        list[str] | None, typer.Argument(help="Domains; by default all that are bundled.")
    ] = None,
    _json: Json = False,
) -> None:
    """Count the weights of a network for some domains: as the paper does, and all of them.

    \b
    Examples:
      u2net model parameters
      u2net model parameters heart liver hippocampus prostate pancreas --json
    """
    from u2net_platform.domains.discovery import discover, find_plugin
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.add_domain import find_added
    from u2net_platform.workflows.parameters import network_sizes

    if domains:  # one of them may have been added from a folder of its own
        settings, catalog = open_home()
        found = [find_added(name, settings, catalog) for name in domains]
    else:
        settings = Settings()
        bundled = [one.name for one in discover(settings) if one.source == "bundled"]
        found = [find_plugin(name, settings) for name in bundled]
    specs = [one.working.spec for one in found]
    data = {"domains": [one.name for one in found], "networks": network_sizes(specs)}
    emit(data, _sizes)


def _verifications(data: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table("version", "backbone", "domain", "output", "output on the probe", "state")
    for one in data["versions"]:
        digests = (one.backbone_digest, one.domain_digest, one.output_digest or "-")
        shown = [digest[:12] for digest in digests]
        state = "FAULT" if one.fault else "ok"
        table.add_row(one.version, *shown, one.output, state)
    return table


def _sizes(data: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(
        "network",
        "convolutions shared",
        "a domain's",
        "as the paper counts",
        "paper says",
        "everything",
        title=f"{len(data['domains'])} domains: {', '.join(data['domains'])}",
        caption=(
            "Convolutions leave out stems, heads and norms. Of universal networks the paper leaves "
            "out the dense strided ones (4.7M) as well. Its 30.7M is one 3x3x3 convolution fewer "
            "per level than it describes; its independent networks are of several depths."
        ),
    )
    for one in data["networks"]:
        counts = (one.shared_convolutions, one.a_domains_convolutions, one.as_the_paper_counts)
        shown = [f"{count:,}" for count in counts]
        table.add_row(one.name, *shown, one.paper_says, f"{one.everything:,}")
    return table


def _details(data: dict[str, Any]) -> Table:
    from rich.table import Table

    one, run = data["version"], data["run"]
    table = Table("", one.reference)
    fold = "all" if run.fold is None else run.fold
    rows = {
        "backbone": one.backbone_digest,
        "domain weights": one.domain_digest,
        "spec": one.spec_digest,
        "plan": one.plan_digest,
        "same backbone": ", ".join(data["same_backbone"]) or "-",
        "run": f"{run.id} ({run.kind}, {run.mode}, fold {fold}, seed {run.seed})",
        "trained with": ", ".join(run.domains),
        "sites": ", ".join(f"{site} ({n} rounds)" for site, n in data["sites"].items()) or "-",
        "from": run.base_version or "-",
        "data": str(run.fingerprints.get(one.domain, {}).get("data_digest", "-")),
        "MLflow run": run.mlflow_run_id or "-",
        "patch z y x": " ".join(map(str, one.plan["patch_zyx"])),
        "spacing z y x, mm": " ".join(f"{side:g}" for side in one.plan["spacing_zyx_mm"]),
        "recipe": ", ".join(f"{key}={value}" for key, value in run.recipe.items()),
        **{f"scores: {name}": _shown(value) for name, value in sorted(one.metrics.items())},
    }
    for key, value in rows.items():
        table.add_row(key, value)
    return table
