"""Headers: which go on to a server, and which come back to a client."""

from __future__ import annotations

import re
import uuid

from multidict import CIMultiDict, CIMultiDictProxy

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade", "http2-settings")
)  # fmt: skip
OF_CLIENTS = frozenset(
    ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "cookie2", "host", "content-length", "expect",
     "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip",
     "x-forwarded-prefix", "x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method",
     "x-method-override", "x-request-id")
)  # fmt: skip
"""What is between a client and the gate, or would tell a server of another path, method or origin."""
OF_SERVERS = frozenset(("set-cookie", "set-cookie2", "location", "server", "date", "x-request-id", "alt-svc"))
REQUEST_ID = "X-Request-Id"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def request_id(given: list[str]) -> str:
    """Return the client's own request id if it is a plain one, else a new one."""
    return given[0] if len(given) == 1 and _ID.fullmatch(given[0]) else uuid.uuid4().hex


def to_server(headers: CIMultiDictProxy[str], key: str | None, identity: str) -> CIMultiDict[str]:
    """Return the headers for a server: without the client's credentials, with the internal key and the request's id."""
    passed = _without(headers, OF_CLIENTS)
    passed[REQUEST_ID] = identity
    if key is not None:
        passed["Authorization"] = f"Bearer {key}"
    return passed


def to_client(headers: CIMultiDictProxy[str], identity: str) -> CIMultiDict[str]:
    """Return the headers of a server's reply for the client."""
    passed = _without(headers, OF_SERVERS)
    passed[REQUEST_ID] = identity
    return passed


def _without(headers: CIMultiDictProxy[str], names: frozenset[str]) -> CIMultiDict[str]:
    listed = {name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(",")}
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (lower := name.lower()) not in HOP_BY_HOP and lower not in names and lower not in listed
    )
