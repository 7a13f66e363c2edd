"""Read recipes over HTTPS from the site of vLLM's maintainers."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass

from flagscale_deploy.errors import InputError
from flagscale_deploy.remote.system.http_exchange import exchange, seconds_left

HOST = "recipes.vllm.ai"
SECONDS = 20.0
"""How long one request may take, from the look-up of the name to the last byte."""
ADDRESS_SECONDS = 5.0
"""How long one address of the name is tried: the first may lead nowhere, by IPv6 say."""
_FOLDER = "try again; or name a folder with the site's files: --recipes DIR"


@dataclass(frozen=True)
class Site:
    """A server of recipes. `context` is what its certificate is verified by, None for the system's authorities."""

    host: str = HOST
    port: int = 443
    context: ssl.SSLContext | None = None
    seconds: float = SECONDS

    def __str__(self) -> str:
        return f"https://{self.host}"

    def where(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self}/{path}"

    def get(self, path: str) -> str | None:
        """Return the text at a path, None where there is none. Raises InputError; no redirect is followed."""
        where = self.where(path)
        try:
            status, text = self._exchange(path)
        except ssl.SSLError as error:
            raise InputError.at(where, f"no HTTPS is spoken there: {error.reason or error}", _FOLDER) from error
        except OSError as error:
            raise InputError.at(where, f"is not reached: {error.strerror or error}", _FOLDER) from error
        if status in (404, 410):
            return None
        if status != 200:
            raise InputError.at(where, f"found HTTP status {status}, expected 200", _FOLDER)
        return text

    def names(self, _folder: str) -> list[str]:
        """Return nothing: the site lists no folders."""
        return []

    def _exchange(self, path: str) -> tuple[int, str]:
        end = time.monotonic() + self.seconds
        context = self.context or ssl.create_default_context()
        with (
            closing(self._connect(end)) as plain,
            closing(context.wrap_socket(plain, server_hostname=self.host)) as secured,
        ):
            headers = {"Accept": "application/json", "User-Agent": "flagscale-deploy"}
            return exchange(secured, f"https://{self.host}:{self.port}/{path}", None, headers, end)

    def _connect(self, end: float) -> socket.socket:
        """Return a connection to the first address of the host that answers, by `end`. Raises OSError."""
        failed: OSError = OSError("the name has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(min(ADDRESS_SECONDS, seconds_left(end)))
                connection.connect(place)
                connection.settimeout(seconds_left(end))
                return connection
            except OSError as error:
                connection.close()
                failed = error
        raise failed
