"""A federation within one process: Flower's own messages and serialisers, and no network."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.app.constants import DEFAULT_TTL
from flwr.app.error import Error
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from u2net_platform.errors import Interrupted
from u2net_platform.federation.client_app import app as site_app


class LocalGrid(Grid):
    """Calls the sites' ClientApp, one after the other. sites: folders by name."""

    def __init__(self, sites: Mapping[str, Path], client_app: ClientApp = site_app) -> None:
        self._app = client_app
        self._names = dict(enumerate(sites, start=1))
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"site-dir": str(sites[name])},
                state=RecordDict(),
                run_config={},
            )
            for node, name in self._names.items()
        }
        self._numbers = count(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("there is one run in a process")

    @property
    def run(self) -> Run:
        raise NotImplementedError("there is one run in a process")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        metadata = Metadata(
            run_id=1,
            message_id="",
            src_node_id=0,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=time.time(),
            ttl=ttl or DEFAULT_TTL,
            message_type=message_type,
        )
        return make_message(metadata, content)

    def get_node_ids(self) -> list[int]:
        return list(self._names)

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, name=name) for node, name in self._names.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = []
        for message in messages:
            name = str(next(self._numbers))
            message.metadata.__dict__["_message_id"] = name
            self._replies[name] = self._deliver(message)
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = (self._replies.pop(name, None) for name in message_ids)
        return [one for one in found if one is not None]

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> list[Message]:
        raise NotImplementedError("each answer is asked for by itself")

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            return _through_wire(self._app(_through_wire(message), self._contexts[node]))
        except Interrupted:
            raise
        except Exception:
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code, "ClientApp"), reply_to=message)


def _through_wire(message: Message) -> Message:
    return message_from_proto(
        ProtoMessage.FromString(message_to_proto(message).SerializeToString())
    )
