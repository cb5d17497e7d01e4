"""The command line, put together: one file per noun, one line per command."""

from __future__ import annotations

from typing import Annotated

import typer

from u2net_platform.cli import (
    bundle,
    catalog,
    demo,
    deployment,
    domain,
    federate,
    federation,
    info,
    model,
    predict,
    site,
    study,
    sync,
    train,
)
from u2net_platform.cli.output import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=info.show_version, is_eager=True, help="Show it."),
    ] = False,
) -> None:
    """One small network that segments organs in the 3D images of many domains."""


app.add_typer(domain.app, name="domain")
app.command()(train.prepare)
app.command()(train.train)
app.command()(train.adapt)
app.command()(study.study)
app.command()(predict.predict)
app.command()(predict.evaluate)
app.add_typer(model.app, name="model")
model.app.command()(deployment.deploy)
model.app.command()(deployment.rollback)
model.app.command()(deployment.withdraw)
model.app.command()(deployment.promote)
model.app.command()(deployment.history)
model.app.command()(bundle.export)
model.app.command("import")(bundle.import_)
model.app.command()(bundle.key)
model.app.command()(sync.sync)
app.add_typer(federate.app, name="federate")
app.add_typer(federation.app, name="federation")
app.add_typer(site.app, name="site")
app.add_typer(catalog.app, name="catalog")
app.command()(info.info)
app.command()(info.doctor)
app.command()(demo.demo)
