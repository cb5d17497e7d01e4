"""The coordinator's folder: authority, certificate, bundle, and what nginx and Flower read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from u2net_platform.errors import NotWritable
from u2net_platform.federation.keys import CA_FILE, create_authority
from u2net_platform.files import write_text
from u2net_platform.settings import PRODUCT, Settings

CONFIG_FILE = "federation.json"
LINK = "u2net"  # what the coordinator's own commands call the SuperLink
BUNDLE = """\
[project]
name = "u2net-federation"
version = "{version}"
description = "Names code that is installed at the coordinator and at every site; holds none."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "u2net"

[tool.flwr.app.components]
serverapp = "u2net_platform.federation.server_app:app"
clientapp = "u2net_platform.federation.client_app:app"

[tool.flwr.app.config]
run = ""
"""
NGINX = """\
# Sites reach the Fleet path alone; the rest of the SuperLink stays on this machine.
# Include it in the http block of nginx.conf.
server {{
    listen {listen} ssl;
    server_name {names};
    ssl_certificate "{folder}/server.crt";
    ssl_certificate_key "{folder}/server.key";
    ssl_protocols TLSv1.2 TLSv1.3;
    client_max_body_size 64m;

    location /v1/fleet/ {{
        proxy_pass https://127.0.0.1:{port};
        proxy_ssl_trusted_certificate {folder}/ca.crt;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;  # nginx does not look at addresses in a certificate
        proxy_set_header Host $host;
        proxy_read_timeout 300s;
    }}

    location / {{
        return 403;
    }}
}}
"""


class SuperLinkConfig(BaseModel):
    """hosts: names and addresses of the coordinator. sites: Flower's node by name, once known."""

    # A file that an earlier program wrote holds `public_port` as well.
    model_config = ConfigDict(frozen=True, extra="ignore")

    hosts: tuple[str, ...]
    port: int
    sites: dict[str, int | None] = {}


@dataclass(frozen=True)
class Created:
    """A coordinator's folder, and the digest by which sites approve its bundle."""

    folder: Path
    bundle: str
    nginx: Path


def folder_of(settings: Settings) -> Path:
    return settings.home.resolve() / "federation"


def init_superlink(
    settings: Settings, hosts: tuple[str, ...], port: int, public_port: int
) -> Created:
    """Make a coordinator's folder: authority, certificate, bundle, and what nginx needs.

    hosts: names and addresses that sites use; loopback is added.

    Raises:
        NotWritable: there is one already.
        InvalidFederation: a host is none.
    """
    folder = folder_of(settings)
    if (folder / CONFIG_FILE).exists():
        raise NotWritable(f"{folder} is there already", "Go on with it, or remove it first.")
    every = tuple(dict.fromkeys([*hosts, "localhost", "127.0.0.1"]))
    for name in ("ca.key", "server.key"):  # of an `init` that was killed: nobody knows them
        (folder / name).unlink(missing_ok=True)
    create_authority(folder, every)
    write_text(folder / "bundle" / "pyproject.toml", BUNDLE.format(version=version(PRODUCT)))
    nginx = folder / "nginx.conf"
    text = NGINX.format(listen=public_port, names=" ".join(every), folder=folder, port=port)
    write_text(nginx, text)
    link = {"address": f"127.0.0.1:{port}", "root-certificates": str(folder / CA_FILE)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in link.items()]
    write_text(
        folder / "flower" / "config.toml",
        "\n".join([f'[superlink]\ndefault = "{LINK}"\n\n[superlink.{LINK}]', *lines]) + "\n",
    )
    config = SuperLinkConfig(hosts=every, port=port)
    write_text(folder / CONFIG_FILE, config.model_dump_json(indent=2))
    return Created(folder, bundle_digest(folder), nginx)


def bundle_digest(folder: Path) -> str:
    """SHA-256 of the bundle as Flower packs it."""
    from flwr.cli.build import build_fab_from_disk

    return hashlib.sha256(build_fab_from_disk(folder / "bundle")).hexdigest()
