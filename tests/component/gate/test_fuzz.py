"""Thousands of request targets and headers over raw sockets: none reaches what clients are not to reach."""

from __future__ import annotations

import asyncio
import os
import posixpath
import random
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.component.gate.gate import INTERNAL, KEYS, SECONDS, Gate, ask
from tests.component.gate.stand_in import MODEL, StandIn

WHOLE = os.environ.get("FSD_FAULTS") == "all"
REQUESTS = 100_000 if WHOLE else 10_000
SEED = 20261130
TOGETHER = 200
"""Connections at the same time: a request that is not whole ends with its idle time only."""
ADMIN = """
    add_worker remove_worker list_workers workers flush_cache get_loads metrics sleep wake_up scale_elastic_ep
    invocations reset_prefix_cache collective_rpc v1/load_lora_adapter server_info v1/unload_lora_adapter update_weights
    pause abort_requests start_profile fault_tolerance/apply
    """.split()  # noqa: SIM905 (one name a line would fill a page)
PASSES = ("v1/chat/completions", "v1/completions", "v1/embeddings", "version", "health", "v1/models", "v1/responses/r1")
SLASHES = (
    "//", "/./", "/../", "\\", "%2f", "%2F", "/%2e%2e/", "/..;/", "/;a=b/", "%5c", "/%2e/", "/ ", "/\t",
    "%252f", "/..%2f", "/.%2e/", "/%00/", "/\x00", "\xc0\xaf", "%c0%af", "/\r", "/...", "/v1/..", "/v1/%2e%2e/",
)  # fmt: skip
TAILS = (
    "/", "?", "?a=1", "?../add_worker", ";a", "#a", "%00", "%20", "%0a", "%0d%0aX: 1", "/.", "/..", ".",
    "..", "?url=http://evil", "\\", "*", "%", "%zz", ":80", "@x", "&", "%3f", "?\x00", "?a b", "%23", "/*",
)  # fmt: skip
METHODS = (
    *["GET", "POST"] * 10, "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "M-SEARCH", "GET\t",
    "",
)  # fmt: skip
PREFIXES = ("http://127.0.0.1", "http://a:30000", "//127.0.0.1", "https://x@y", "*", "a:80", "?", "#")
HEADERS = (
    "X-Original-URL: /add_worker", "X-Rewrite-URL: /metrics", "X-HTTP-Method-Override: POST", "Connection: close, x-a",
    "Connection: authorization", "Connection: x-request-id, content-length", "Transfer-Encoding: chunked",
    "Transfer-Encoding: xchunked", "Transfer-Encoding : chunked", "Content-Length: 5", "Content-Length: -1",
    "Content-Length: 5, 5", "Upgrade: websocket", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__",
    "Expect: 100-continue", "Cookie: a=b", "X-Api-Key: x", "Host: a", "Host: /add_worker", " folded: a", "No colon",
    "Bad\x00: a", "A: b\x00c", "A: \xff\xfe", "X-Request-Id: a\tb", "X-Request-Id: ../../x", "Content-Encoding: gzip",
    "TE: trailers", "Trailer: authorization", "Proxy-Authorization: Basic x", "Forwarded: host=evil", "Range: bytes=0-",
    "X-Forwarded-Prefix: /add_worker", "A" * 300 + ": b",
)  # fmt: skip
VERSIONS = (*["HTTP/1.1"] * 30, "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "http/1.1", "")
SMUGGLED = b"GET /add_worker HTTP/1.1\r\nHost: a\r\n\r\n"
BODIES = (b"", b"", b'{"model": "qwen"}', b"{}", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", SMUGGLED)


def target(chance: random.Random) -> str:
    """Return a request target around a path that passes or an admin endpoint, spoilt in some ways."""
    words = chance.choice((ADMIN, ADMIN, PASSES))
    path = chance.choice(words)
    if chance.random() < 0.4:
        path = f"{chance.choice(PASSES)}{chance.choice(SLASHES)}{path}"
    if chance.random() < 0.4:
        path = path.replace("/", chance.choice(SLASHES))
    if chance.random() < 0.3:
        place = chance.randrange(len(path))
        path = f"{path[:place]}%{ord(path[place]):02{chance.choice('xX')}}{path[place + 1 :]}"
    if chance.random() < 0.1:
        place = chance.randrange(len(path))
        path = path[:place] + chr(chance.randrange(256)) + path[place:]
    if chance.random() < 0.1:
        path = path.swapcase()
    begin = chance.choice(PREFIXES) if chance.random() < 0.1 else ""
    slash = chance.choice(SLASHES) if chance.random() < 0.2 else "/"
    return begin + slash + path + (chance.choice(TAILS) if chance.random() < 0.5 else "")


def request(chance: random.Random) -> bytes:
    """Return a request with alice's key, whole or not."""
    lines = chance.sample(HEADERS, chance.choice((0, 0, 1, 2, 3)))
    body = chance.choice(BODIES)
    if chance.random() < 0.6:
        lines.append(f"Content-Length: {len(body)}")
    first = f"{chance.choice(METHODS)} {target(chance)} {chance.choice(VERSIONS)}"
    head = "\r\n".join((first, "Host: gate", f"Authorization: Bearer {KEYS['alice']}", *lines))
    return head.encode("latin-1", "replace") + b"\r\n\r\n" + body


def harmless(path: str) -> bool:
    """Return whether no server can read another path in this one, and it is no admin endpoint."""
    read = path
    for _ in range(3):
        read = unquote(read)
    read = posixpath.normpath(read.replace("\\", "/").partition(";")[0].partition("\0")[0].strip())
    segments = {*read.lower().split("/"), read.lower().strip("/")}
    return read == path and (path.startswith("/v1/") or path in ("/version", "/health")) and not segments & {*ADMIN}


async def statuses(gate: Gate, requests: list[bytes]) -> Counter[int]:
    """Send each over a connection of its own, many at the same time; count the replies, 0 where there is none."""
    counted: Counter[int] = Counter()
    waiting = iter(requests)

    async def send() -> None:
        for content in waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            try:
                writer.write(content)
                reply = await asyncio.wait_for(reader.read(4096), SECONDS)
            except ConnectionError:
                reply = b""
            writer.transport.abort()
            counted[int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.") else 0] += 1

    await asyncio.gather(*(send() for _ in range(TOGETHER)))
    return counted


@pytest.mark.timeout(1200)
def test_no_request_reaches_an_admin_endpoint(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    requests = [request(chance) for _ in range(REQUESTS)]
    with StandIn() as server, Gate(tmp_path, {MODEL: [server.url]}, idle_seconds=1.0) as gate:
        counted = asyncio.run(statuses(gate, requests))
        assert [path for path in server.paths if not harmless(path)] == []
        assert server.paths >= {f"/{path}" for path in PASSES}
        for arrival in server.arrivals:
            names = {name.lower() for name, _ in arrival.headers}
            assert not names & {"cookie", "x-api-key", "connection", "transfer-encoding", "upgrade", "x-original-url"}
            key = None if arrival.target == "/health" else f"Bearer {INTERNAL}"  # /health is asked by the gate itself
            assert arrival.header("authorization") == key
        assert 500 not in counted, gate.log.read_text()[-2000:]
        assert "Traceback" not in gate.log.read_text()
        assert MODEL not in gate.log.read_text().partition("listens on")[2].partition("\n")[2]  # no bytes of a client
        assert ask(gate, body={"model": MODEL}).status == 200
        # The requests are no mere noise: some pass, and each way to refuse one is taken.
        assert {200, 400, 404, 405} <= counted.keys(), counted
