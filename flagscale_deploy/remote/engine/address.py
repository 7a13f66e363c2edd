"""Where a server is, from the URL that another host gave of it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple, Optional
from urllib.parse import urlsplit


class Place(NamedTuple):
    """An IP address and a port."""

    address: str
    port: int


def parse(url: str) -> Optional[Place]:
    """Return the place of `http://ADDRESS:PORT`; None for every other URL, such as one with a name, path or query."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").partition("%")[0], parts.port or 0
        written = "http://%s:%d" % ("[%s]" % host if ip_address(host).version == 6 else host, port)
    except ValueError:
        return None
    return Place(host, port) if port and url == written else None
