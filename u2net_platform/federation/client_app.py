"""What Flower runs at a site: the site's answers to the coordinator.

The node's configuration has the site's folder, `site-dir`. Where anything fails, the answer is the
name of the error's class, and the text goes to the site's own log.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from u2net_platform.errors import Interrupted
from u2net_platform.federation.aggregation import Refused
from u2net_platform.federation.messages import Ask, Finish, Order, answer, failure, pack, unpack
from u2net_platform.federation.site import Site, site_at

FAULTS_FILE = "faults.log"

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
        _log(directory, error)
        word = error.reason if isinstance(error, Refused) else type(error).__name__
        return Message(failure(word), reply_to=message)


def _log(directory: Path, error: Exception) -> None:
    """Keep the whole story at the site."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": type(error).__name__,
        "text": "".join(traceback.format_exception(error)),
    }
    try:
        with (directory / FAULTS_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
    except OSError:
        return  # a full disk: the coordinator hears of the first fault all the same
