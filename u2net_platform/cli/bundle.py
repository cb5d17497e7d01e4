"""`u2net model export`, `import`, `key`: a version as one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net_platform.cli.home import open_home
from u2net_platform.cli.output import Json, emit, talk


def export(
    version: Annotated[str, typer.Argument(help="A version: heart:3, heart@champion.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file, as heart.u2net.")],
    sign: Annotated[Path | None, typer.Option(help="Sign it with this private key.")] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Show so many test cases on the card: images of patients.")
    ] = 0,
    _json: Json = False,
) -> None:
    """Write a version into one file: weights, spec, plan, scores, origin and a model card.

    \b
    Examples:
      u2net model export heart@champion --output heart.u2net
      u2net model export heart:3 --output heart.u2net --sign ~/keys/lab --pictures 3
    """
    from u2net_platform.workflows.bundle import export_bundle
    from u2net_platform.workflows.signing import load_private_key

    settings, catalog = open_home()
    record = catalog.find(version)
    key = load_private_key(sign) if sign else None
    sheet = sheet_of(record.reference, pictures) if pictures else None
    export_bundle(settings, record, output, key, sheet)
    found = {"version": record.reference, "bundle": output, "bytes": output.stat().st_size}
    emit(found, lambda data: f"{data['version']} is in {output}, {data['bytes'] / 2**20:.1f} MiB")


def import_(
    bundle: Annotated[Path, typer.Argument(help="A file that `model export` wrote.")],
    trust: Annotated[
        list[Path] | None,
        typer.Option(help="Take it only if this public key has signed it; may be repeated."),
    ] = None,
    _json: Json = False,
) -> None:
    """Verify a bundle and publish what it holds as the next version of its domain.

    \b
    Examples:
      u2net model import heart.u2net --trust lab.pub
    """
    from u2net_platform.settings import Settings
    from u2net_platform.workflows.bundle import import_bundle
    from u2net_platform.workflows.register import keep_registered
    from u2net_platform.workflows.signing import load_public_key

    settings = Settings()
    done = import_bundle(settings, bundle, [load_public_key(path) for path in trust or []])
    if done.signer is None:
        talk("The bundle is not signed: who made it is not known.")
    signed = f", signed by {done.signer}" if done.signer else ""
    there = "" if done.new else ", which was there already"
    if done.added:
        talk(f"{done.record.reference} got scores that it lacked: {', '.join(done.added)}")
    if done.kept:
        name, these = done.record.reference, ", ".join(done.kept)
        talk(f"Not taken over: {these}. {name} has others, or is from here: --trust a signer.")
    data = {"version": done.record} | {
        name: getattr(done, name) for name in ("signer", "new", "added", "kept")
    }
    emit(data, lambda _: f"{bundle} is {done.record.reference}{there}{signed}")
    keep_registered(settings, [done.record.domain], talk)


def key(
    path: Annotated[Path, typer.Argument(help="The private key's file; the public one gets .pub.")],
    _json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys to sign bundles with.

    \b
    Examples:
      u2net model key ~/keys/lab
    """
    from u2net_platform.workflows.signing import create_key, fingerprint, load_public_key

    public = create_key(path)
    data: dict[str, Any] = {
        "private": path,
        "public": public,
        "fingerprint": fingerprint(load_public_key(public)),
    }
    emit(data, lambda _: f"{path}: keep it; {public}: give it away; {data['fingerprint']}")


def sheet_of(reference: str, count: int) -> bytes:
    from u2net_platform.evaluation.pictures import write_sheet
    from u2net_platform.inference.device import choose_device
    from u2net_platform.workflows.evaluate import cases_of, sheet_rows
    from u2net_platform.workflows.versions import load_predictor

    settings, catalog = open_home()
    loaded = load_predictor(settings, reference, choose_device("auto"))
    cases = cases_of(catalog, loaded.record, "test")
    rows = sheet_rows([(loaded, case) for case in cases[:count]])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.png"
        write_sheet(file, rows, {})
        return file.read_bytes()
