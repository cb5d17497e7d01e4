"""Messages to the sites of one run, and their answers, over Flower's grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx
from flwr.app import Message, RecordDict
from flwr.app.error import Error
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from u2net_platform.errors import U2NetError
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
        """Send to each site, and wait for answers, no longer than a round takes.

        Each is asked for by itself: one that cannot be read would hide the others, and what it says
        of its sender proves nothing.
        """
        timeout = self._request.round_minutes * 60
        until = time.monotonic() + timeout
        messages = {
            site: self._grid.create_message(content, kind, nodes[site], self._run_id, timeout)
            for site, content in contents.items()
        }
        numbers = list(self._grid.push_messages(list(messages.values())))
        if len(numbers) < len(messages):  # Flower says so in its log, as of one that is too large
            self._on_note("Flower has sent nothing: see its log")
            return {}
        waiting = {site: one for site, one in zip(messages, numbers, strict=True) if one}
        found: dict[str, Message] = {}
        while True:
            for site, number in list(waiting.items()):
                if reply := self._reply(site, number, messages[site]):
                    found[site] = reply
                    del waiting[site]
            if not waiting or time.monotonic() >= until:
                return found
            time.sleep(POLL_SECONDS)

    def _reply(self, site: str, number: str, message: Message) -> Message | None:
        """The answer to a message, if it is there."""
        try:
            return next(iter(self._grid.pull_messages([number])), None)
        except U2NetError:
            raise
        except httpx.HTTPError:  # of the SuperLink, not of the answer: it is asked for again
            return None
        except Exception as error:  # whatever Flower's decoders raise
            self._on_note(f"{site}'s answer cannot be read: {type(error).__name__}")
            code = ErrorCode.MESSAGE_UNAVAILABLE
            return Message(Error(code, "BadMessage"), reply_to=message)
