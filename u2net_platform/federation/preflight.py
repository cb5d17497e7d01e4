"""Whether a site could take part now: what would else come to light in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from u2net_platform.data.dataset import open_dataset
from u2net_platform.domains.discovery import find_plugin
from u2net_platform.errors import FlowerFailed
from u2net_platform.federation.keys import A_MONTH, CA_FILE, server_time, shake_hands
from u2net_platform.federation.site import Site
from u2net_platform.federation.site_config import SiteDomain
from u2net_platform.federation.site_folder import require_ready
from u2net_platform.inference.device import choose_device
from u2net_platform.workflows.doctor import Finding, guarded

SECONDS = 10.0  # to reach the coordinator
FLOWER_AHEAD_S, FLOWER_BEHIND_S = 4, 300  # of what a site signs; Flower has a little more


def preflight(folder: Path) -> list[Finding]:
    """What of a site is ready and what is not. Nothing is sent but two TLS handshakes and a HEAD.

    Raises:
        InvalidSite: the folder is no site.
    """
    site = Site(folder)
    findings = [
        *guarded("folder", partial(_folder, site)),
        *guarded("device", partial(_device, site)),
        *guarded("privacy", partial(_privacy, site)),
        *guarded("coordinator", partial(_coordinator, site)),
    ]
    for name, domain in site.config.domains.items():
        findings += guarded(name, partial(_domain, site, name, domain))
    if not site.config.domains:
        findings.append(Finding("domains", "fail", "there is none", "Add [domains.NAME]."))
    return findings


def _folder(site: Site) -> Iterator[Finding]:
    require_ready(site.directory, site.config)
    yield Finding("folder", "ok", f"{site.config.name}: keys, authority and an approved bundle")


def _device(site: Site) -> Iterator[Finding]:
    yield Finding("device", "ok", str(choose_device(site.config.device)))


def _privacy(site: Site) -> Iterator[Finding]:
    site.privacy.require_room()
    if (spent := site.privacy.epsilon()) is not None:
        yield Finding("privacy", "ok", f"epsilon {spent:.2f} is spent, and another round may leave")


def _coordinator(site: Site) -> Iterator[Finding]:
    address, authority = site.config.coordinator, site.directory / CA_FILE
    if address is None or not authority.is_file():
        return  # `folder` says so
    host, _, port = address.rpartition(":")
    try:
        ends = shake_hands(authority, host, int(port), host, SECONDS)
    except (OSError, ValueError) as error:
        raise FlowerFailed(
            f"{address} does not answer as the holder of {CA_FILE}'s certificate: {error}",
            "Ask the coordinator whether it runs, for its address and for its present ca.crt; and"
            " whoever keeps the firewall whether this machine may reach it.",
        ) from error
    if (told := server_time(authority, host, int(port), SECONDS)) is not None:
        ahead = (datetime.now(UTC) - told).total_seconds()
        if not -FLOWER_BEHIND_S < ahead < FLOWER_AHEAD_S:
            yield Finding(
                "clock",
                "fail",
                f"this machine's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
                " the coordinator's: Flower refuses what is signed so",
                "Set both by NTP.",
            )
    late = ends - datetime.now(UTC) < A_MONTH
    yield Finding(
        "coordinator",
        "warn" if late else "ok",
        f"{address} answers, and is who it says; its certificate ends on {ends:%Y-%m-%d}",
        "Let the coordinator renew it: u2net federation renew" if late else "",
    )


def _domain(site: Site, name: str, domain: SiteDomain) -> Iterator[Finding]:
    plugin = find_plugin(name, site.settings)
    dataset = open_dataset(site.path(domain.data))
    cases = sum(case.label is not None for case in dataset.training)
    if not cases:
        yield Finding(name, "fail", f"{dataset.directory} has no labelled case", "Label some.")
        return
    shares = ", its own weights are averaged" if domain.weights == "average" else ""
    detail = f"{cases} labelled cases in {dataset.directory}, plugin from {plugin.source}{shares}"
    yield Finding(name, "ok", detail)
