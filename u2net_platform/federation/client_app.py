"""What Flower runs at a site: the site's answers to the coordinator.

The node's configuration has the site's folder, `site-dir`. Where anything fails, the answer is the
name of the error's class, and the text goes to the site's own log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from u2net_platform.errors import Interrupted, StorageError
from u2net_platform.federation.aggregation import Refused
from u2net_platform.federation.journal import audit, keep_fault
from u2net_platform.federation.messages import Ask, Finish, Order, answer, failure, pack, unpack
from u2net_platform.federation.site import Site, site_at

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Which domains the site holds."""

    def work(site: Site) -> RecordDict:
        ask, _ = unpack(Ask, message.content)
        return pack(site.describe(ask))

    return _answer(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round."""

    def work(site: Site) -> RecordDict:
        order, given = unpack(Order, message.content)
        sent = site.train(order, given)
        return answer(sent.held, sent.updates, sent.examples, sent.steps, sent.metrics)

    return _answer(message, context, work)


@app.train("finish")
def finish(message: Message, context: Context) -> Message:
    """The end of a run: the site's own versions."""

    def work(site: Site) -> RecordDict:
        order, given = unpack(Finish, message.content)
        return pack(site.finish(order, given))

    return _answer(message, context, work)


def _answer(message: Message, context: Context, work: Callable[[Site], RecordDict]) -> Message:
    directory = Path(str(context.node_config["site-dir"]))
    try:
        return Message(work(site_at(directory)), reply_to=message)
    except Interrupted:
        raise  # whoever ends this process does not want a next round
    except Exception as error:
        word = error.reason if isinstance(error, Refused) else type(error).__name__
        keep_fault(directory, error)
        with suppress(StorageError):  # that is the fault itself
            audit(directory, "failed", {"word": word})
        return Message(failure(word), reply_to=message)
