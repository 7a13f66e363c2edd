"""Listen on this host's ports and connect to those of others, while the same program runs there.

It ends, and its listeners with it, when standard input does, or when its time is over (see the bundle's alarm).
A client that does not know the token gets a nonce and nothing else.
"""

from __future__ import annotations

import resource
import selectors
from typing import TYPE_CHECKING, Callable, Optional

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.network_test.connect import Attempts
from flagscale_deploy.remote.network_test.listener import Listener
from flagscale_deploy.remote.network_test.throughput import measure, serve_measurement
from flagscale_deploy.remote.orders import OrderReader

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import NetworkTestArguments, NetworkTestOrder, NetworkTestReply

send: Callable[[NetworkTestReply], None] = wire.send

POLL_SECONDS = 0.05


def main(args: NetworkTestArguments) -> None:
    """Listen, and do what is asked."""
    _allow_many_sockets()
    token = bytes.fromhex(args["token"])
    selector = selectors.DefaultSelector()
    listener = Listener(selector, token, serve_measurement)
    send({"listening": [listener.open(place["address"], place["port"]) for place in args["ports"]]})
    orders: OrderReader[NetworkTestOrder] = OrderReader()
    selector.register(0, selectors.EVENT_READ, orders.receive)
    attempts: Optional[Attempts] = None
    while not orders.ended:
        for key, _ in selector.select(POLL_SECONDS):
            key.data()
        listener.drop_timed_out_clients()
        if attempts is not None and attempts.over():
            send({"tried": attempts.results()})
            attempts = None
        order = orders.next() if attempts is None else None
        if order and "try" in order:
            attempts = Attempts(selector, order["try"], token)
        elif order:
            measured = measure(order["measure"]["address"], order["measure"]["port"], token)
            send({"latency": measured["latency"], "bandwidth": measured["bandwidth"]})


def _allow_many_sockets() -> None:
    """Allow as many open files as the system does: every host of a large deployment connects to the head at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
