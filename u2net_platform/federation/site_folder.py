"""Making and finding the folders of sites."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from u2net_platform.errors import InvalidSite, NotWritable
from u2net_platform.federation.keys import create_site_key
from u2net_platform.federation.site import SITE_FILE, SiteConfig
from u2net_platform.files import write_text


def init_site(folder: Path, name: str, domains: Mapping[str, Path]) -> Path:
    """Make a site's folder, with its keys; returns the public key's file.

    Raises:
        NotWritable: there is a site already.
        InvalidSite: the name is none.
    """
    if (folder / SITE_FILE).exists():
        raise NotWritable(f"{folder} is a site already", "Edit its site.toml.")
    lines = [
        f"name = {json.dumps(name)}",
        'device = "auto"',
        "workers = 1",
        "# SHA-256 of the bundles that may run here: u2net site approve",
        "approved = []",
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
    write_text(folder / SITE_FILE, "\n".join(lines).rstrip() + "\n")
    try:
        SiteConfig.load(folder)
    except InvalidSite:
        (folder / SITE_FILE).unlink()
        raise
    return create_site_key(folder)


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
