"""Listens on this host's ports and tries those of others, while the same program runs there.

main({"ports": [{"address", "port"}], "password", "answer"}) says {"listening": [{"port"} | {"port", "taken",
"problem"}]}, in their order. Then it does what it is told on standard input, a line of JSON each: {"try": [{"address",
"port"}]} → {"tried": [{"seconds", "failure", "problem"}]}; {"measure": {"address", "port"}} → {"latency", "bandwidth"}.
It ends, and its listeners with it, when standard input does, or when its time is over (see the bundle's alarm).

`password` and `answer` are words that only programs of one check know: who doesn't say the one gets no byte, and who
doesn't say the other is somebody else.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
from typing import Any, Dict, Optional

from flagscale_deploy.remote.network_test.connect import Round
from flagscale_deploy.remote.network_test.listener import Doors
from flagscale_deploy.remote.network_test.throughput import entertain, measure
from flagscale_deploy.remote.wire import say

POLL_SECONDS = 0.05


class Orders:
    """Lines from standard input, which may come in pieces."""

    def __init__(self) -> None:
        self.ended = False
        self._text = b""

    def read(self) -> None:
        """Take what has come."""
        try:
            more = os.read(0, 1 << 16)
        except OSError:
            more = b""
        self.ended = not more
        self._text += more

    def next(self) -> Optional[Dict[str, Any]]:
        """The next order, if all of it is there."""
        line, end, rest = self._text.partition(b"\n")
        if not end:
            return None
        self._text = rest
        order: Dict[str, Any] = json.loads(line)
        return order


def main(args: Dict[str, Any]) -> None:
    """Listen and do what is told; see the module."""
    _allow_many_sockets()
    words = args["password"], args["answer"]
    selector = selectors.DefaultSelector()
    doors = Doors(selector, *words, entertain=entertain)
    say(listening=[doors.open(each["address"], each["port"]) for each in args["ports"]])
    orders = Orders()
    selector.register(0, selectors.EVENT_READ, orders.read)
    tried: Optional[Round] = None
    while not orders.ended:
        for key, _ in selector.select(POLL_SECONDS):
            key.data()
        doors.turn_out_the_late()
        if tried is not None and tried.over():
            say(tried=tried.results())
            tried = None
        order = orders.next() if tried is None else None
        if order and "try" in order:
            tried = Round(selector, order["try"], *words)
        elif order:
            say(**measure(order["measure"]["address"], order["measure"]["port"], *words))


def _allow_many_sockets() -> None:
    """The head of a large deployment hears from every host at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
