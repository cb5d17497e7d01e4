"""The documents name everything that a user can meet."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
import typer.main
from pydantic import BaseModel

from u2net_platform import errors
from u2net_platform.catalog.tables import Base
from u2net_platform.cli.app import app
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.settings import Settings

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text("utf-8")
ARCHITECTURE = (CHECKOUT / "ARCHITECTURE.md").read_text("utf-8")


def commands(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for part, child in command.commands.items():
            yield from commands(child, f"{name} {part}")
    else:
        yield name


def spec_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in inner_models(field.annotation):
            yield from spec_keys(part, f"{prefix}{name}.")


def inner_models(annotation: typing.Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from inner_models(part)


def faults(base: type[errors.U2NetError]) -> Iterator[type[errors.U2NetError]]:
    for one in base.__subclasses__():
        yield one
        yield from faults(one)


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app), "u2net")))
def test_the_readme_has_a_row_for_every_command(command: str) -> None:
    assert re.search(rf"^\| `{command}[ `]", README, re.MULTILINE)


def test_the_readme_has_no_row_for_a_command_that_is_not_there() -> None:
    rows = re.findall(r"^\| `(u2net [a-z]+(?: [a-z]+){0,2})", README, re.MULTILINE)
    assert set(rows) == set(commands(typer.main.get_command(app), "u2net"))


def test_the_readme_has_a_row_for_every_exit_code_and_no_other() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert rows == {0, 2, errors.U2NetError.exit_code} | {
        one.exit_code for one in faults(errors.U2NetError)
    }


@pytest.mark.parametrize("name", [f"U2NET_{name.upper()}" for name in Settings.model_fields])
def test_the_readme_has_a_row_for_every_environment_variable(name: str) -> None:
    assert f"| `{name}` |" in README


@pytest.mark.parametrize("key", list(spec_keys(DomainSpec)))
def test_the_architecture_has_a_row_for_every_key_of_domain_toml(key: str) -> None:
    assert re.search(rf"^\| `{re.escape(key)}` \|", ARCHITECTURE, re.MULTILINE)


def test_the_architecture_has_no_row_for_a_key_that_is_not_there() -> None:
    section = ARCHITECTURE.split("## domain.toml")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(spec_keys(DomainSpec))


@pytest.mark.parametrize(
    "hook",
    [field.name for field in fields(DomainPlugin) if field.default is None],
)
def test_the_architecture_describes_every_hook(hook: str) -> None:
    assert f"`{hook}(" in ARCHITECTURE


@pytest.mark.parametrize("table", list(Base.metadata.tables))
def test_the_architecture_has_a_row_for_every_table_of_the_catalog(table: str) -> None:
    assert re.search(rf"^\| `{table}` \|", ARCHITECTURE, re.MULTILINE)


@pytest.mark.parametrize(
    "document",
    [path.relative_to(CHECKOUT) for path in CHECKOUT.glob("*.md")],
    ids=str,
)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (CHECKOUT / document).read_text("utf-8"))
    assert all((CHECKOUT / link).exists() for link in links)
