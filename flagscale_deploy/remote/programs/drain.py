"""Wait until servers on this host have no request any more, running or waiting.

What a router sent just before a server was taken out of it may be on its way: a server counts as idle once it has shown
none for QUIET_SECONDS. One that takes no connection has none.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Optional

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.engine import metrics, openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.wire import input_ended

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.change import DrainArguments, DrainReply

send: Callable[[DrainReply], None] = wire.send

POLL_SECONDS, QUIET_SECONDS = 0.1, 1.0


def main(args: DrainArguments) -> None:
    """Wait until nothing is left, or for as long as asked for, and say what is left.

    Raises RuntimeError, with nothing asked, for a URL that this host's own record has not: another host named it.
    """
    own = record.local_urls(record.read(args["deployment"], args["host"]) or {}, args["host"])
    if not own.issuperset(args["urls"]):
        raise RuntimeError("%s: no server of %s here" % (", ".join(args["urls"]), args["deployment"]))
    client = openai.client(args["deployment"], args["host"])
    end = time.monotonic() + args["timeout"]
    quiet_since: Optional[float] = None
    while True:
        left = look(client, args)
        now = time.monotonic()
        if not left["idle"]:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = now
        if quiet_since is not None and now - quiet_since >= QUIET_SECONDS:
            break
        if now >= end:
            left["idle"] = False
            break
        if input_ended(POLL_SECONDS):
            return
    send(left)


def look(client: Client, args: DrainArguments) -> DrainReply:
    """Return what the servers have to do just now."""
    left: DrainReply = {"idle": True, "requests": 0, "why": ""}
    for url in args["urls"]:
        try:
            status, text = client.request(url + "/metrics", timeout=metrics.SECONDS)
        except ConnectionRefusedError:
            continue
        except (OSError, ValueError) as error:
            left["idle"], left["why"] = False, "%s: %s" % (url, error or type(error).__name__)
            continue
        figures = (metrics.parse(text) if status == 200 else None) or {}
        if "running" not in figures:
            left["idle"], left["why"] = False, "%s/metrics does not count requests" % url
        left["requests"] += round(max(0.0, figures.get("running", 0.0)) + max(0.0, figures.get("waiting", 0.0)))
    left["idle"] = left["idle"] and not left["requests"]
    return left
