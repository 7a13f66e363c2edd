"""The one HTTP client that programs on a host ask its servers with.

No byte is sent before the other end of the connection is verified to be a process of the deployment (`PortGuard`); it
is verified again before a reply is believed. The key goes only with what needs it. There are no proxies on the way to
this host's own servers, and no redirect is followed. A reply is bounded in bytes and in total time.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from typing import Iterable, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError, NotThisHostError, PortGuard
from flagscale_deploy.remote.system import http_exchange
from flagscale_deploy.remote.system.http_exchange import seconds_left
from flagscale_deploy.remote.system.sock_diag import Connection

PARTIAL_CHAIN = 0x80000
"""OpenSSL's X509_V_FLAG_PARTIAL_CHAIN: a certificate that is trusted by itself needs no authority above it."""


class _Verified(NamedTuple):
    connected: socket.socket
    ends: Connection
    here: bool
    """Whether it ends on this host, at a verified process."""


class Client:
    """Requests to the servers of one deployment on this host.

    `certificates` are the files that its servers were started with: they are trusted, also self-signed. A relative path
    starts at home, where engines run.
    """

    def __init__(self, guard: PortGuard, certificates: Iterable[str] = (), key: Optional[str] = None) -> None:
        self._guard, self._key = guard, key
        self._certificates = [os.path.join(os.path.expanduser("~"), path) for path in certificates]

    def reach(self, url: str, timeout: float) -> None:
        """Raise OSError unless a process of the deployment takes connections there; nothing is sent.

        Raises ForeignListenerError where somebody else does, NotThisHostError where another host takes it.
        """
        self._open(url, time.monotonic() + timeout, private=True, listening=True).connected.close()

    def request(
        self,
        url: str,
        body: Optional[Mapping[str, object]] = None,
        *,
        private: bool = False,
        timeout: float = 30.0,
        take: Optional[http_exchange.Take] = None,
        data_rank: Optional[int] = None,
    ) -> Tuple[int, str]:
        """Return status and text of a reply; errors of HTTP are replies.

        With `data_rank`, that data-parallel rank is to reply, not the one that the server chooses (vLLM's header).
        `private` is what carries the key or a prompt: it is only sent to a verified process on this host.
        With `take`, it is called with each piece of a reply of status 200 as it comes, whose text is "". Raises OSError
        where no reply came, or no HTTP, or too much of it; ForeignListenerError where somebody else has the port.
        """
        end = time.monotonic() + timeout
        headers = {"Content-Type": "application/json"}
        if private and self._key:
            headers["Authorization"] = "Bearer " + self._key
        if data_rank is not None:
            headers["X-data-parallel-rank"] = "%d" % data_rank
        data = None if body is None else json.dumps(body).encode()
        verified = self._open(url, end, private=private)
        with verified.connected as connected:
            if url.startswith("https"):
                connected.settimeout(seconds_left(end))
                connected = self._context().wrap_socket(connected)
            with connected:
                reply = http_exchange.exchange(
                    connected, url, data, headers, end, take and self._after_check(verified, take)
                )
                if verified.here:
                    self._guard.check_replied(verified.ends)
        return reply

    def _after_check(self, verified: _Verified, take: http_exchange.Take) -> http_exchange.Take:
        """Return what verifies the other end again before the first piece of a reply is taken."""
        unchecked = [verified.ends] if verified.here else []

        def checked(piece: bytes) -> None:
            if unchecked:
                self._guard.check_replied(unchecked.pop())
            take(piece)

        return checked

    def _open(self, url: str, end: float, *, private: bool = False, listening: bool = False) -> _Verified:
        """Connect to the first address of the URL's host that leads to the deployment."""
        place = urlsplit(url)
        failed: OSError = OSError("%s has no address" % place.hostname)
        for family, kind, _, _, address in socket.getaddrinfo(place.hostname, place.port, type=socket.SOCK_STREAM):
            connected = socket.socket(family, kind)
            try:
                connected.settimeout(seconds_left(end))
                connected.connect(address)
                ends = Connection.of(connected)
                return _Verified(connected, ends, self._verify(ends, private, listening))
            except OSError as error:
                connected.close()
                failed = failed if isinstance(failed, ForeignListenerError) else error
        raise failed

    def _verify(self, ends: Connection, private: bool, listening: bool) -> bool:
        """Return whether a connection ends at a verified process; False for another host, of which nothing is known."""
        try:
            (self._guard.check_listeners if listening else self._guard.check)(ends)
        except NotThisHostError:
            if private:
                raise
            return False
        return True

    def _context(self) -> ssl.SSLContext:
        """Return what trusts the servers' certificates; the names in them are for clients, and not for this address."""
        context = ssl.create_default_context()
        context.check_hostname = False
        for path in self._certificates:
            context.load_verify_locations(cafile=path)
        if self._certificates:
            context.verify_flags = ssl.VerifyFlags(context.verify_flags | PARTIAL_CHAIN)
        return context
