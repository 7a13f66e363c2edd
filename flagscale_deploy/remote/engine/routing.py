"""Change which servers are behind a vllm-router (its endpoints as of 0.1.17, which answer anyone)."""

from __future__ import annotations

import time
from typing import List
from urllib.parse import quote

from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import json_files
from flagscale_deploy.remote.wire import cut

LIST_SECONDS = 10.0
POLL_SECONDS = 0.2
LONGEST = 300
"""Characters of an answer that are quoted."""
MOST_WORKERS, LONGEST_URL = 1000, 2000
WORKERS = {"urls": [str]}


def workers(client: Client, router: str) -> List[str]:
    """Return the URLs of the workers of a router on this host. Raises OSError, ValueError."""
    status, text = client.request(router + "/list_workers", timeout=LIST_SECONDS)
    if status != 200:
        raise ValueError("/list_workers answers %d: %s" % (status, cut(text, LONGEST)))
    reply = json_files.parse_object(text)
    problem = json_files.mismatch(reply, WORKERS) or ("" if "urls" in reply else "it has no urls")
    if problem:
        raise ValueError("/list_workers: %s" % problem)
    return [cut(url, LONGEST_URL) for url in reply["urls"][:MOST_WORKERS]]


def wait_for(client: Client, router: str, end: float) -> None:
    """Wait until a router takes connections: one that is started again does not, until its servers are healthy.

    Raises OSError, ConnectionRefusedError where it does not by `end`.
    """
    while True:
        try:
            return client.reach(router, LIST_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() >= end:
                raise
            time.sleep(POLL_SECONDS)


def is_among(url: str, urls: List[str]) -> bool:
    """Return whether a router has a server: one with several data-parallel ranks is there as `URL@RANK`."""
    return any(other.rstrip("/").partition("@")[0] == url.rstrip("/") for other in urls)


def put(client: Client, router: str, url: str, end: float, *, behind: bool) -> None:
    """Put a server behind a router, or take it out, and see that it is so: status 200 alone proves nothing.

    A router answers once the server that it gets is healthy. Raises OSError, ValueError.
    """
    endpoint, answer = "add_worker" if behind else "remove_worker", "nothing"
    while is_among(url, workers(client, router)) != behind:
        left = end - time.monotonic()
        if left <= 0:
            raise ValueError("%s of %s has no effect; it answers %s" % (endpoint, url, answer))
        status, text = client.request("%s/%s?url=%s" % (router, endpoint, quote(url, safe="")), {}, timeout=left)
        answer = "%d: %s" % (status, cut(text, LONGEST))
        time.sleep(POLL_SECONDS)
