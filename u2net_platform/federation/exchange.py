"""Messages to the sites of one run, and their answers, over Flower's grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from u2net_platform.federation.request import FederationRequest

POLL_SECONDS = 1.0


class Exchange:
    """Which sites are there, and what they answer."""

    def __init__(
        self, grid: Grid, run_id: str, request: FederationRequest, on_note: Callable[[str], None]
    ) -> None:
        self._grid, self._run_id, self._request, self._on_note = grid, run_id, request, on_note

    def present(self, number: int) -> dict[str, int]:
        """Sites that are there for a round, by name, once all are or the wait is over."""
        until = time.monotonic() + self._request.wait_minutes * 60
        while True:
            names = {node.name: node.node_id for node in self._grid.get_nodes()}
            there = {site: names[site] for site in self._request.sites if site in names}
            over = time.monotonic() >= until
            if len(there) == len(self._request.sites) or over:
                break
            time.sleep(POLL_SECONDS)
        if over and len(there) < len(self._request.sites):
            missing = ", ".join(sorted(set(self._request.sites) - set(there)))
            self._on_note(f"Round {number} goes on without {missing}")
        return there

    def ask(
        self, nodes: Mapping[str, int], kind: str, contents: Mapping[str, RecordDict]
    ) -> dict[str, Message]:
        """Send to each site, and wait for answers, no longer than a round takes."""
        timeout = self._request.round_minutes * 60
        messages = {
            site: self._grid.create_message(content, kind, nodes[site], self._run_id, timeout)
            for site, content in contents.items()
        }
        sites = {node: site for site, node in nodes.items()}
        replies = self._grid.send_and_receive(list(messages.values()), timeout=timeout)
        # A node that is not there is answered for by the SuperLink, under an id of its own.
        by_message = {m.metadata.message_id: site for site, m in messages.items()}
        found: dict[str, Message] = {}
        for reply in replies:
            site = by_message.get(reply.metadata.reply_to_message_id) or sites.get(
                reply.metadata.src_node_id
            )
            if site is not None:
                found.setdefault(site, reply)
        return found
