"""Take servers out of a vllm-router on this host, or put them back, and see that it is so."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Callable, List

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.engine import openai, routing

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.change import RouteArguments, RouteReply

send: Callable[[RouteReply], None] = wire.send


def main(args: RouteArguments) -> None:
    """Change the router; say what is behind it then, and why that is not as asked for.

    Raises RuntimeError, with nothing asked, for one that this host's own record has not: another host named it.
    """
    if args["router"] not in record.local_urls(record.read(args["deployment"], args["host"]) or {}, args["host"]):
        raise RuntimeError("%s: no router of %s here" % (args["router"], args["deployment"]))
    client, router, end = openai.client(args["deployment"], args["host"]), args["router"], time.monotonic()
    end += args["timeout"]
    problem = ""
    workers: List[str] = []
    try:
        routing.wait_for(client, router, end)
        for url in args["remove"]:
            routing.put(client, router, url, end, behind=False)
        for url in args["add"]:
            routing.put(client, router, url, end, behind=True)
    except (OSError, ValueError) as error:
        problem = "%s: %s" % (router, error or type(error).__name__)
    with contextlib.suppress(OSError, ValueError):
        workers = routing.workers(client, router)
    send({"workers": workers, "problem": problem})
