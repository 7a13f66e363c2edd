"""The servers behind the gate: which one a request goes to, and how a request is sent there."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from flagscale_deploy.gate.errors import Refusal
from flagscale_deploy.gate.guard import GuardedConnector

CONNECT_SECONDS = 10.0
"""Long enough for a host that is busy; a port that nobody has refuses at once."""
ANSWER_SECONDS = 3.0
KEPT_SECONDS = 2.0
"""How long an idle connection to a server is kept: less than the 5 s after which vLLM's closes it."""
DOWN_SECONDS = 15.0
"""How long a server that could not be reached comes after the others."""
READ_BUFFER = 16 << 10
STALE = 3
"""Kept connections that may turn out to be closed, in one request."""
_ADDED_BY_AIOHTTP = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


@dataclass(eq=False)
class Upstream:
    """A server, with the number of requests that it has of the gate."""

    url: str
    open: int = 0
    failed: float = float("-inf")
    used: float = 0.0

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Return what is least for the server that takes the next request."""
        return self.late, self.open, self.used

    @property
    def late(self) -> bool:
        """Return whether it could not be reached just now."""
        return time.monotonic() - self.failed < DOWN_SECONDS


class ConnectError(Exception):
    """A server could not be reached: the request was not sent."""


class Upstreams:
    """All servers, by URL; a server keeps its count of requests while the configuration changes."""

    def __init__(self) -> None:
        self._servers: dict[str, Upstream] = {}

    def keep(self, urls: Iterable[str]) -> None:
        """Forget servers that are not among these and have no request."""
        wanted = set(urls)
        self._servers = {url: server for url, server in self._servers.items() if url in wanted or server.open}

    @property
    def open(self) -> dict[str, int]:
        """Return how many requests each server has, also of those that are in no list any more."""
        return {url: server.open for url, server in self._servers.items()}

    def get(self, urls: Iterable[str]) -> list[Upstream]:
        """Return the servers with these URLs, the one for the next request first."""
        servers = [self._servers.setdefault(url, Upstream(url)) for url in dict.fromkeys(urls)]
        return sorted(servers, key=lambda server: server.rank)


@dataclass
class Message:
    """A request as it goes to a server. The body is taken out when the reply has begun, so that it holds no memory."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes


@dataclass
class Attempt:
    """Notes whether a request went over a connection that was there before."""

    reused: bool = False


def session(trust: str | None) -> aiohttp.ClientSession:
    """Return a client without cookies, proxies, redirects of its own, or a limit of connections."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    context = ssl.create_default_context(cafile=trust)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return aiohttp.ClientSession(
        connector=GuardedConnector(limit=0, keepalive_timeout=KEPT_SECONDS, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=_ADDED_BY_AIOHTTP,
        read_bufsize=READ_BUFFER,
        max_line_size=64 << 10,
        max_field_size=64 << 10,
        trace_configs=[trace],
    )


async def _note_reuse(_session: object, context: SimpleNamespace, _parameters: object) -> None:
    attempt = context.trace_request_ctx
    if isinstance(attempt, Attempt):
        attempt.reused = True


async def send(
    client: aiohttp.ClientSession, server: Upstream, message: Message, silence: float
) -> aiohttp.ClientResponse:
    """Return a server's reply, of which the head has come.

    Raises ConnectError where nothing was sent, Refusal where the server broke off or was silent for too long.
    A kept connection that the server has closed meanwhile is replaced by another.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence or None)
    url = URL(server.url + message.target, encoded=True)
    for _ in range(STALE + 1):
        attempt = Attempt()
        try:
            return await client.request(
                message.method,
                url,
                headers=message.headers,
                data=message.body or None,
                allow_redirects=False,
                timeout=timeout,
                trace_request_ctx=attempt,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            server.failed = time.monotonic()
            raise ConnectError(f"{server.url}: {error}") from error
        except asyncio.TimeoutError as error:
            raise Refusal(504, "The server did not answer in time", "timeout") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if not attempt.reused:
                raise Refusal(502, "The server broke off before it answered", "bad_gateway") from error
    raise Refusal(502, "The server closes its connections before it answers", "bad_gateway")


def credentials(key: str | None) -> dict[str, str]:
    """Return the header with the internal key."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


async def get_json(
    client: aiohttp.ClientSession, server: Upstream, path: str, headers: Mapping[str, str]
) -> tuple[int, bytes] | None:
    """Return status and content (1 MiB at most) of a GET of the gate's own; None where there is no answer in 3 s."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with client.get(
            server.url + path, headers={"Accept": "application/json", **headers}, timeout=timeout, allow_redirects=False
        ) as reply:
            content = bytearray()
            async for piece in reply.content.iter_any():
                content += piece
                if len(content) > 1 << 20:
                    return None
            return reply.status, bytes(content)
    except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError):
        return None
