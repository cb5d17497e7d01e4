"""`u2net predict` and `u2net evaluate`: what a published version makes of images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from u2net_platform.cli.home import open_home
from u2net_platform.cli.output import Json, emit, progress, talk
from u2net_platform.cli.run_options import Memory, Mirror, check_report

if TYPE_CHECKING:
    from rich.table import Table

    from u2net_platform.data.dataset import Case
    from u2net_platform.evaluation.report import Report
    from u2net_platform.workflows.versions import LoadedVersion

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]


class Part(StrEnum):
    test = "test"
    validation = "validation"
    training = "training"
    all = "all"


def predict(
    domain: Annotated[
        list[str],
        typer.Option(
            help="A domain, or a version: heart, heart:3, heart@champion. Again for more."
        ),
    ],
    inputs: Annotated[
        Path, typer.Option("--input", "-i", help="An image, a folder of them, or of DICOM files.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A file for one image and domain; else, or without an ending, a folder.",
        ),
    ],
    series: Annotated[
        list[str] | None, typer.Option(help="UID of a DICOM series; again for each channel.")
    ] = None,
    device: Device = "auto",
    memory: Memory = None,
    mirror: Mirror = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="A picture of three slices beside each output.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave what is there: goes on with a folder.")
    ] = False,
    ending: Annotated[
        str, typer.Option(help="Of what is written into a folder; .dcm is a DICOM SEG.")
    ] = ".nii.gz",
    _json: Json = False,
) -> None:
    """Label images, each on its own grid; a JSON file beside has names, volumes and the version.

    In a folder, case_0000.nii.gz, case_0001.nii.gz, ... are the channels of one case. A folder of
    DICOM files is one image, unless the folders in it hold several studies: each of these is one
    then. An output that ends with .dcm is a DICOM SEG. Of several domains, each writes into a
    folder of its name.

    \b
    Examples:
      u2net predict --domain heart -i scan.nii.gz -o atrium.nii.gz --preview
      u2net predict --domain heart:3 -i scans/ -o labels/ --device cuda
      u2net predict --domain heart -i DICOM/ST01 -o atrium.dcm
      u2net predict --domain heart -i DICOM/ -o segs/ --ending .dcm
      u2net predict --domain liver --domain spleen -i ct.nii.gz -o labels/ --memory 4GiB
    """
    from u2net_platform.inference.device import choose_device
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.labeller import Existing, Labeller
    from u2net_platform.workflows.predict import (
        failure_of,
        find_inputs,
        named,
        predict_inputs,
    )
    from u2net_platform.workflows.versions import load_predictor

    if overwrite and skip_existing:
        raise typer.BadParameter("--overwrite and --skip-existing exclude each other")
    existing: Existing = "replace" if overwrite else "skip" if skip_existing else "refuse"
    find_inputs(inputs)  # before the networks are loaded
    device_ = choose_device(device)
    versions = [
        load_predictor(Settings(), one, device_, memory=memory, mirror=mirror) for one in domain
    ]
    _check_different([one.record.domain for one in versions])
    labellers = [Labeller.of(one, preview, ending) for one in versions]
    found, warned = find_inputs(inputs, labellers, series or ()), set[str]()
    total = len(found.cases)

    def warn(text: str) -> None:
        if text not in warned:  # by another domain
            talk(f"Warning: {text}")
        warned.add(text)

    with progress(f"Predicting {', '.join(domain)}", total) as done:
        results = predict_inputs(labellers, found, output, done, existing, warn)
    cases = [
        {
            "case_id": one.case_id,
            "domain": one.domain,
            "output": one.output,
            "error": one.error and named(one.error),
            "volumes_ml": one.volumes_ml,
            "warnings": one.warnings,
            "preview": one.preview,
        }
        for one in results
    ]
    labelled = {case.domain for case in results if case.output}
    if by := [one.version for one in labellers if one.domain in labelled]:
        talk(f"Labelled by {', '.join(by)}")
    if skipped := total * len(labellers) - len(results):
        talk(f"Labels that were there already, and were left: {skipped}")
    data = {
        "versions": [one.version for one in labellers],
        "cases": cases,
        "left_out": found.left_out,
    }
    emit(data, _written, failure_of(results))


def evaluate(
    versions: Annotated[
        list[str],
        typer.Argument(
            help="A domain, or a version of it: heart, heart:3, heart@champion. Several of other"
            " folds are scored as one."
        ),
    ],
    cases: Annotated[Part, typer.Option(help="Which part of the version's own split.")] = Part.test,
    data: Annotated[
        Path | None, typer.Option(help="The data set, if not where the catalog has it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".json or .csv file")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="A .png file: the five worst cases, found beside true.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A folder for what is predicted of each case.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Keep the means under this name, with --cases all --data FOLDER."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N cases of each version.")
    ] = None,
    device: Device = "auto",
    mirror: Mirror = False,
    _json: Json = False,
) -> None:
    """Score a version: Dice, HD95 and surface Dice per class, with failures counted.

    Scores of all test cases are kept with the version in the catalog; those of another data set
    under the name of --keep. `model promote` and `model deploy` go by them.

    \b
    Examples:
      u2net evaluate heart
      u2net evaluate heart:3 --cases validation --output scores.csv
      u2net evaluate heart:1 heart:2 heart:3 heart:4 heart:5   # of five folds: every case once
      u2net evaluate heart --pictures worst.png --labels predicted/
      u2net evaluate heart --cases all --data WardNorth --keep ward_north
    """
    from u2net_platform.catalog.references import NAME
    from u2net_platform.evaluation.report import Report
    from u2net_platform.files import write_text
    from u2net_platform.inference.device import choose_device
    from u2net_platform.workflows.evaluate import (
        cases_of,
        evaluate_cases,
        keep_scores,
        new_files,
        require_apart,
        require_other_data,
    )
    from u2net_platform.workflows.labeller import Labeller
    from u2net_platform.workflows.predict import cases_failed
    from u2net_platform.workflows.register import keep_registered
    from u2net_platform.workflows.versions import load_predictor

    settings, catalog = open_home()
    if keep and (cases is not Part.all or data is None or limit or mirror):
        raise typer.BadParameter(
            "--keep is for --cases all --data FOLDER, without --limit and --mirror"
        )
    if keep and not re.fullmatch(NAME, keep):
        raise typer.BadParameter(f"--keep {keep}: small letters, digits, - and _, a letter first")
    check_report(output, ".json", ".csv")
    check_report(pictures, ".png")
    parts = []
    for version in versions:
        loaded = load_predictor(settings, version, choose_device(device), mirror=mirror)
        chosen = cases_of(catalog, loaded.record, cases.value, data)[:limit]
        if keep and (doubt := require_other_data(settings, catalog, loaded, chosen)):
            talk(doubt)
        parts.append((loaded, chosen))
    require_apart(parts)
    if labels:  # before the work of the first version
        new_files(labels, [case for _, chosen in parts for case in chosen])
    reports, scored = [], set[str]()
    for loaded, chosen in parts:
        record = loaded.record
        with progress(f"Evaluating {record.reference}", len(chosen)) as done:
            report = evaluate_cases(Labeller.of(loaded), chosen, done, labels)
        if keep:
            keep_scores(catalog, record, report, keep)
        elif cases is Part.test and data is None and limit is None and not mirror:
            keep_scores(catalog, record, report)
            scored.add(record.domain)
        reports.append(report)
    report = Report.pooled(reports)
    if output:
        write_text(output, _document(report, output))
        talk(f"Wrote {output}")
    if pictures:
        _write_pictures(pictures, parts, report)
    reasons = {case.case_id: case.error for case in report.cases if case.error}
    try:
        scores = report.document() | {"part": cases.value}
        emit(scores, _scores, cases_failed(reasons, len(report.cases)))
    finally:
        if scored:
            keep_registered(settings, scored, talk)


def _write_pictures(
    target: Path, parts: Sequence[tuple[LoadedVersion, Sequence[Case]]], report: Report
) -> None:
    from u2net_platform.evaluation.pictures import write_sheet
    from u2net_platform.workflows.evaluate import sheet_rows

    by_id = {case.id: (loaded, case) for loaded, chosen in parts for case in chosen}
    if worst := [by_id[name] for name in report.worst(5)]:
        write_sheet(target, sheet_rows(worst), {})
    talk(f"Wrote {target}" if worst else "No case has scores, so there are no pictures")


def _check_different(domains: list[str]) -> None:
    if len(set(domains)) < len(domains):
        raise typer.BadParameter("a domain is named twice, and both would write the same files")


def _document(report: Report, output: Path) -> str:
    import json

    if output.suffix == ".csv":
        return report.to_csv()
    return json.dumps(report.document(), indent=2) + "\n"


def _written(data: dict[str, Any]) -> str:
    return "\n".join(str(case["output"]) for case in data["cases"] if case["output"])


def _scores(report: dict[str, Any]) -> Table:
    from rich.table import Table

    mean = report["mean"]
    table = Table("class", "Dice", "HD95 mm", "surface Dice", "absent", title=report["version"])
    for name, row in {**mean["classes"], "mean": mean["overall"]}.items():
        values = [_number(row[key]) for key in ("dice", "hd95_mm", "surface_dice")]
        table.add_row(name, *values, str(mean["absent"].get(name, "")))
    table.caption = f"{mean['cases']} cases ({report['part']}), {mean['failures']} failed"
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
