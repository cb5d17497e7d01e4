"""Making, finding and starting sites."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType

from u2net_platform.errors import InvalidSite, NotWritable
from u2net_platform.federation.keys import CA_FILE, SITE_KEY, create_site_key
from u2net_platform.federation.site_config import (
    APPROVED_FILE,
    SITE_FILE,
    SiteConfig,
    approved_bundles,
)
from u2net_platform.federation.superlink import environment
from u2net_platform.files import write_bytes, write_text

CLIENT_APP = TASK_TYPE_TO_COMMAND[TaskType.CLIENT_APP]
GUARD = "u2net_platform.federation.guarded_client"


def init_site(
    folder: Path,
    name: str,
    domains: Mapping[str, Path],
    coordinator: str | None = None,
    authority: Path | None = None,
) -> Path:
    """Make a site's folder, with its keys; returns the public key's file.

    coordinator: host:port. authority: the coordinator's ca.crt, which is copied.

    Raises:
        NotWritable: there is a site already.
        InvalidSite: the name is none.
    """
    if (folder / SITE_FILE).exists():
        raise NotWritable(f"{folder} is a site already", "Edit its site.toml.")
    lines = [
        f"name = {json.dumps(name)}",
        'device = "auto"',
        *([f"coordinator = {json.dumps(coordinator)}"] if coordinator else []),
        "",
        "# What leaves the site can be clipped and made noisy; see ARCHITECTURE.md.",
        "[privacy]",
        "clip = 0.0",
        "noise = 0.0",
        "",
        '# One table a domain. Its own weights stay here, unless weights is "average".',
    ]
    for domain, data in domains.items():
        where = json.dumps(str(data.resolve()))
        lines += [f"[domains.{domain}]", f"data = {where}", 'weights = "local"', ""]
    text = "\n".join(lines).rstrip() + "\n"
    SiteConfig.parse(text, folder / SITE_FILE)
    for data in domains.values():
        if not data.is_dir():
            raise InvalidSite(f"{data} is no folder of data", "Give the one with dataset.json.")
    if authority is not None:
        trust_authority(folder, authority)
    public = create_site_key(folder)
    write_text(folder / SITE_FILE, text)  # last: with it the folder is a site
    return public


def renew_key(folder: Path) -> Path:
    """Make a new key pair in place of a site's own; returns the public key's file.

    Raises:
        InvalidSite: the folder is none of a site.
    """
    SiteConfig.load(folder)
    (folder / SITE_KEY).unlink(missing_ok=True)
    return create_site_key(folder)


def trust_authority(folder: Path, authority: Path) -> None:
    """Take over a coordinator's certificate of authority.

    Raises:
        InvalidSite: the file is no certificate.
    """
    try:
        content = authority.read_bytes()
        load_pem_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise InvalidSite(
            f"{authority} is no certificate", "Take ca.crt from the coordinator's folder."
        ) from error
    write_bytes(folder / CA_FILE, content)


def approve(folder: Path, digest: str) -> None:
    """Let a bundle run at a site.

    Raises:
        InvalidSite: that is no SHA-256.
    """
    SiteConfig.load(folder)
    digest = digest.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidSite(
            f"{digest!r} is no SHA-256", "Take what u2net federation init or start says."
        )
    every = sorted({*approved_bundles(folder), digest})
    write_text(folder / APPROVED_FILE, "\n".join(every) + "\n")


def require_ready(folder: Path, config: SiteConfig) -> None:
    """Check that a site has all that a SuperNode needs.

    Raises:
        InvalidSite: a file is missing, or its key may be read by others.
    """
    if config.coordinator is None:
        raise InvalidSite(
            f"{folder / SITE_FILE} names no coordinator", 'Add a line: coordinator = "host:port"'
        )
    for name, remedy in ((CA_FILE, "Copy the coordinator's ca.crt there."), (SITE_KEY, "")):
        if not (folder / name).is_file():
            raise InvalidSite(f"{folder / name} is missing", remedy or "u2net site init makes it.")
    if (folder / SITE_KEY).stat().st_mode & 0o077:
        raise InvalidSite(
            f"{folder / SITE_KEY} may be read by others", f"chmod 600 {folder / SITE_KEY}"
        )
    if not approved_bundles(folder):
        raise InvalidSite(f"{folder} has approved no bundle", f"u2net site approve {folder} SHA256")


def start_command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The SuperNode of a site: its command, and its environment.

    Raises:
        InvalidSite: as `require_ready`.
    """
    folder = folder.resolve()
    config = SiteConfig.load(folder)
    require_ready(folder, config)
    assert config.coordinator is not None  # it is ready
    programs = _write_programs(folder / "bin")
    node = f'site="{config.name}" site-dir={json.dumps(str(folder))}'
    command = [
        "flower-supernode", "--superlink", config.coordinator,
        "--root-certificates", str(folder / CA_FILE), "--host", "127.0.0.1",
        "--port", str(_free_port()), "--auth-supernode-private-key", str(folder / SITE_KEY),
        "--node-config", node,
    ]  # fmt: skip
    found = environment()
    own = {
        "PATH": os.pathsep.join([str(programs), found["PATH"]]),
        "FLWR_HOME": str(folder / "flower"),
        "U2NET_SITE": str(folder),
    }
    return command, found | own


def _write_programs(folder: Path) -> Path:
    """What a SuperNode finds in place of Flower's own programs, whichever the coordinator asks for:
    the one that looks whether a bundle is approved, and for all others one that refuses."""
    for program in TASK_TYPE_TO_COMMAND.values():
        work = f'exec {shlex.quote(sys.executable)} -m {GUARD} "$@"'
        if program != CLIENT_APP:
            work = f"echo {program} is not run at a site >&2\nexit 1"
        write_text(folder / program, f"#!/bin/sh\n{work}\n")
        (folder / program).chmod(0o755)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_sites(folder: Path) -> dict[str, Path]:
    """The sites below a folder, by name.

    Raises:
        InvalidSite: there is none, two have one name, or one is at fault.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.glob(f"*/{SITE_FILE}")):
        name = SiteConfig.load(file.parent).name
        if name in found:
            raise InvalidSite(
                f"{found[name]} and {file.parent} are both {name}", "Rename one of them."
            )
        found[name] = file.parent
    if not found:
        raise InvalidSite(f"{folder} holds no site", "Make one: u2net site init north")
    return found
