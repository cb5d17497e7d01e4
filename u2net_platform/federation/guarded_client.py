"""Flower's `flwr-clientapp`, which first looks whether the site has approved the bundle.

A SuperNode runs what the coordinator sends. A site puts this in front of it, by name on the PATH:
only a bundle whose SHA-256 its people have approved is unpacked and run.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

from flwr.supernode.cli import flwr_clientapp

from u2net_platform.errors import NotApproved
from u2net_platform.federation.journal import keep_fault
from u2net_platform.federation.site_config import approved_bundles

SITE_VARIABLE = "U2NET_SITE"


def main() -> None:
    """Run one task of a SuperNode.

    Raises:
        NotApproved: within Flower, which ends the task and tells the coordinator.
    """
    runner = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    install = runner.install_from_fab

    def guarded(content: bytes, *arguments: Any, **options: Any) -> Any:
        digest, site = hashlib.sha256(content).hexdigest(), Path(os.environ[SITE_VARIABLE])
        try:
            approved = digest in approved_bundles(site)
            if approved:
                return install(content, *arguments, **options)
        except Exception as error:  # Flower would send its text, and with it paths of the site
            keep_fault(site, error)
            raise NotApproved("The bundle cannot be unpacked here", "See faults.log.") from None
        refused = NotApproved(
            f"Bundle {digest} is not approved here", f"u2net site approve FOLDER {digest}"
        )
        keep_fault(site, refused)  # else the coordinator alone hears of it
        raise refused

    runner.install_from_fab = guarded  # type: ignore[attr-defined]
    flwr_clientapp()


if __name__ == "__main__":
    main()
