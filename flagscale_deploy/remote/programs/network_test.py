"""Listen on this host's ports and connect to those of others, while the same program runs there.

main({"ports": [{"address", "port"}], "token"}) sends {"listening": [{"port"} | {"port", "taken", "problem"}]}, in their
order. Then it does what it is asked on standard input, a line of JSON each: {"try": [{"address", "port"}]} → {"tried":
[{"seconds", "failure", "problem"}]}; {"measure": {"address", "port"}} → {"latency", "bandwidth"}. It ends, and its
listeners with it, when standard input does, or when its time is over (see the bundle's alarm).

Only programs of one check know its `token`: a client that does not gets a nonce and nothing else.
"""

from __future__ import annotations

import resource
import selectors
from typing import Any, Dict, Optional

from flagscale_deploy.remote.network_test.connect import Attempts
from flagscale_deploy.remote.network_test.listener import Listener
from flagscale_deploy.remote.network_test.throughput import measure, serve_measurement
from flagscale_deploy.remote.requests import Requests
from flagscale_deploy.remote.wire import say

POLL_SECONDS = 0.05


def main(args: Dict[str, Any]) -> None:
    """Listen, and do what is asked; see the module."""
    _allow_many_sockets()
    token = bytes.fromhex(args["token"])
    selector = selectors.DefaultSelector()
    listener = Listener(selector, token, serve_measurement)
    say(listening=[listener.open(place["address"], place["port"]) for place in args["ports"]])
    requests = Requests()
    selector.register(0, selectors.EVENT_READ, requests.receive)
    attempts: Optional[Attempts] = None
    while not requests.ended:
        for key, _ in selector.select(POLL_SECONDS):
            key.data()
        listener.drop_timed_out_clients()
        if attempts is not None and attempts.over():
            say(tried=attempts.results())
            attempts = None
        request = requests.next() if attempts is None else None
        if request and "try" in request:
            attempts = Attempts(selector, request["try"], token)
        elif request:
            say(**measure(request["measure"]["address"], request["measure"]["port"], token))


def _allow_many_sockets() -> None:
    """Allow as many open files as the system does: every host of a large deployment connects to the head at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
