"""`u2net domain`: which organs this machine can be taught, and whether their data are sound."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.home import open_catalog, open_home
from u2net_platform.cli.output import Json, emit, progress, talk
from u2net_platform.cli.run_options import BatchVoxels, Fold, bytes_of
from u2net_platform.cli.train import plan_table
from u2net_platform.errors import DuplicateDomain, InvalidCases, UnknownDomain

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    help="Domains: list, add, write, check, export and remove them.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="The domain's name, as `domain list` shows it.")]
PluginPath = Annotated[
    Path | None,
    typer.Option("--path", help="A plugin's folder, or a folder of them, to look at besides."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data", help="Its data: an MSD task folder or an nnU-Net raw folder."),
]


@app.command("list")
def list_domains(_json: Json = False) -> None:
    """List all domains: those added, those that can be added, and broken ones with the reason.

    \b
    Examples:
      u2net domain list
      u2net domain list --json
    """
    from u2net_platform.workflows.add_domain import overview

    settings, catalog = open_home()
    emit({"domains": overview(settings, catalog)}, _render_list)


@app.command()
def show(name: Name, path: PluginPath = None, _json: Json = False) -> None:
    """Show what a domain declares, and where its plugin and its data lie.

    \b
    Examples:
      u2net domain show heart
      u2net domain show kidney --path my-plugins --json
    """
    from u2net_platform.domains.spec import DomainSpec
    from u2net_platform.workflows.add_domain import find_added, record_of

    settings, catalog = open_home()
    record = record_of(name, catalog)
    try:
        found = find_added(name, settings, catalog, path)
    except UnknownDomain:
        if record is None or path is not None:
            raise
        # It came in a bundle or by a federation, or its plugin is gone.
        about: dict[str, Any] = {
            "spec": DomainSpec.model_validate(record.spec),
            "digest": record.plugin_digest,
            "source": record.source,
            "directory": None,
            "hooks": [],
        }
    else:
        plugin = found.working
        about = {
            "spec": plugin.spec,
            "digest": plugin.digest,
            "source": found.source,
            "directory": found.directory,
            "hooks": [hook for hook in ("clean_image", "postprocess") if getattr(plugin, hook)],
        }
    about |= {"name": name, "added": record is not None}
    about |= {"data_dir": record.data_dir if record else None}
    emit(about, _render_show)


@app.command()
def add(name: Name, path: PluginPath = None, data: DataDir = None, _json: Json = False) -> None:
    """Take a domain into the catalog, and remember where its data lies. Nothing is copied.

    Adding it again is harmless, and takes over a spec that has changed meanwhile.

    \b
    Examples:
      u2net domain add heart --data Task02_Heart
      u2net domain add abdomen --path my-plugins/abdomen --data Dataset218_AMOS
    """
    from u2net_platform.workflows.add_domain import add_domain, find_added

    settings, catalog = open_home()
    found = find_added(name, settings, catalog, path)
    emit(add_domain(found, catalog, data), _render_added)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, `-` and `_`.")],
    from_dataset: Annotated[
        Path, typer.Option("--from-dataset", help="An MSD task folder or an nnU-Net raw folder.")
    ],
    path: Annotated[
        Path | None, typer.Option("--path", help="Where to write; by default your own plugins.")
    ] = None,
    _json: Json = False,
) -> None:
    """Write a plugin for a data set: a domain.toml to read through, and a data card.

    \b
    Examples:
      u2net domain new abdomen --from-dataset Dataset218_AMOS
      u2net domain new abdomen --from-dataset Dataset218_AMOS --path my-plugins
    """
    from u2net_platform.data.dataset import open_dataset
    from u2net_platform.workflows.add_domain import overview
    from u2net_platform.workflows.new_domain import write_plugin

    settings, catalog = open_home()
    for found in overview(settings, catalog):
        if found.name == name and found.directory:
            raise DuplicateDomain(
                f"there is a domain {name!r} already, in {found.directory}", "Choose another name."
            )
    directory = write_plugin(name, open_dataset(from_dataset), path or settings.plugins_dir)
    emit({"name": name, "directory": directory.resolve()}, lambda data: str(data["directory"]))
    elsewhere = f" --path {shlex.quote(str(directory))}" if path else ""
    data = shlex.quote(str(from_dataset))
    talk(f"Read it through, then: u2net domain add {name}{elsewhere} --data {data}")


@app.command()
def check(name: Name, path: PluginPath = None, data: DataDir = None, _json: Json = False) -> None:
    """Read every case of a domain's data and name all that is wrong or odd, with the remedy.

    Errors keep a case from being used, and end with exit code 4. Warnings are for you to look at.

    \b
    Examples:
      u2net domain check heart
      u2net domain check heart --data Task02_Heart --json
    """
    from u2net_platform.data.checkup import check_dataset
    from u2net_platform.data.dataset import open_dataset
    from u2net_platform.workflows.add_domain import data_dir_of, find_added

    settings, catalog = open_home()
    plugin = find_added(name, settings, catalog, path).working
    dataset = open_dataset(data_dir_of(name, catalog, data), complete=False)
    total = len(dataset.training) + len(dataset.test)
    with progress(f"Checking {name}", total) as on_case:
        findings = check_dataset(plugin, dataset, on_case)
    result = {
        "name": name,
        "directory": dataset.directory,
        "cases": total,
        "findings": [
            {
                "case": finding.case_id,
                "severity": finding.severity,
                "error_code": finding.fault.error_code,
                "message": finding.fault.message,
                "hint": finding.fault.hint,
            }
            for finding in findings
        ],
    }
    errors = [finding for finding in findings if finding.severity == "error"]
    failure = InvalidCases(
        f"{len(errors)} errors in {total} cases of {name}",
        "Correct them as named above, or take the cases out of the data set.",
    )
    emit(result, _render_check, failure if errors else None)


@app.command()
def plan(
    name: Name,
    path: PluginPath = None,
    data: DataDir = None,
    batch_voxels: BatchVoxels = None,
    memory: Annotated[
        int | None,
        typer.Option(
            parser=bytes_of, metavar="SIZE", help="Of one training step, as 16GiB; sets the batch."
        ),
    ] = None,
    fold: Fold = 0,
    _json: Json = False,
) -> None:
    """Take the fingerprint of a domain's data, and derive its grid, patch, pooling and batch.

    Training does the same by itself. A figure that is declared in domain.toml is not derived.

    \b
    Examples:
      u2net domain plan heart --data Task02_Heart
      u2net domain plan heart --memory 16GiB --json
    """
    from u2net_platform.data.plan import training_bytes
    from u2net_platform.data.splits import splitter
    from u2net_platform.training.recipe import Recipe
    from u2net_platform.workflows.add_domain import data_dir_of, find_added
    from u2net_platform.workflows.prepare import plan_domain

    if memory is not None and batch_voxels is not None:
        raise typer.BadParameter("give --batch-voxels or --memory, not both")
    settings, catalog = open_home()
    plugin = find_added(name, settings, catalog, path).working
    if memory is not None:
        batch_voxels = memory // training_bytes(1, plugin.spec.classes)
    directory = data_dir_of(name, catalog, data)
    budget = Recipe.load("default", batch_voxels=batch_voxels).batch_voxels
    with progress(f"Planning {name}") as on_case:
        planned = plan_domain(
            settings.prepared_dir, plugin, directory, splitter(fold), budget, on_case
        )
    emit(
        {
            "domain": name,
            "classes": ("background", *plugin.spec.class_names),
            "fingerprint": planned.fingerprint,
            "plan": planned.plan,
            "digest": planned.plan.digest,
            "batch_voxels": budget,
            "declared": sorted(plugin.spec.plan.model_fields_set),
        },
        _render_plan,
    )


@app.command()
def export(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder nnUNet_raw.")],
    number: Annotated[int, typer.Option(min=1, max=999, help="The data set's, for nnU-Net.")],
    path: PluginPath = None,
    data: DataDir = None,
    _json: Json = False,
) -> None:
    """Write a domain's data as an nnU-Net raw data set, with the domain's classes.

    \b
    Examples:
      u2net domain export heart --output nnUNet_raw --number 102
    """
    from u2net_platform.data.dataset import open_dataset
    from u2net_platform.workflows.add_domain import data_dir_of, find_added
    from u2net_platform.workflows.export_nnunet import export_nnunet

    settings, catalog = open_home()
    plugin = find_added(name, settings, catalog, path).working
    dataset = open_dataset(data_dir_of(name, catalog, data))
    total = len(dataset.training) + len(dataset.test)
    with progress(f"Exporting {name}", total) as on_case:
        directory = export_nnunet(plugin, dataset, output, number, on_case)
    emit({"name": name, "directory": directory}, lambda written: str(written["directory"]))


@app.command()
def remove(name: Name, _json: Json = False) -> None:
    """Take a domain out of the catalog; its plugin and its data stay where they are.

    Refused once something has been trained for it.

    \b
    Examples:
      u2net domain remove heart
    """
    open_catalog().domains.remove(name)
    emit({"name": name}, lambda data: f"{data['name']} removed from the catalog")


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False)


def _render_list(data: dict[str, Any]) -> Table:
    table = _table("domain", "state", "source", "description, or what is wrong")
    for row in data["domains"]:
        state = "broken" if row.fault else "added" if row.added else "available"
        if row.directory is None and not row.fault:
            state = "no plugin"
        place = str(row.directory) if row.source in ("path", "folder") else row.source
        table.add_row(row.name, state, place, row.fault or row.description)
    return table


def _render_show(data: dict[str, Any]) -> str:
    from u2net_platform.domains.toml import to_toml

    facts = [
        f"# {key}: {data[key]}"
        for key in ("directory", "source", "digest", "hooks", "added", "data_dir")
        if data[key]
    ]
    return "\n".join([*facts, "", to_toml(data["spec"])])


def _render_added(data: Any) -> str:
    record = data.record
    said = {
        "added": "added",
        "changed": "updated: its spec or its code has changed",
        "moved": "updated: its plugin or its data lie elsewhere now",
        "unchanged": "there already, nothing has changed",
    }[data.change]
    where = record.data_dir or f"not known yet; u2net domain add {record.name} --data DIR"
    return f"{record.name} {said}\ndata: {where}"


def _render_plan(data: dict[str, Any]) -> Table:
    fingerprint, budget = data["fingerprint"], data["batch_voxels"]
    table = plan_table(data["domain"], data["plan"])
    for label, frequency in zip(data["classes"], fingerprint.classes, strict=True):
        share = f"{frequency.cases} of {fingerprint.cases} cases, {frequency.share:.2%} of voxels"
        table.add_row(label, share)
    for channel in data["plan"].statistics or ():
        table.add_row(
            "intensity",
            f"{channel.low:g} to {channel.high:g}, mean {channel.mean:.4g}, std {channel.std:.4g}",
        )
    table.add_row("declared", ", ".join(data["declared"]) or "-")
    table.add_row("digest", data["digest"])
    table.caption = f"for --batch-voxels {budget}"
    return table


def _render_check(data: dict[str, Any]) -> Table | str:
    if not data["findings"]:
        return f"{data['cases']} cases of {data['name']}, all sound"
    table = _table("case", "", "what was found", "remedy")
    for one in data["findings"]:
        found = f"{one['error_code']}: {one['message']}"
        table.add_row(one["case"] or "-", one["severity"], found, one["hint"])
    return table
