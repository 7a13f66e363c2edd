"""Measure one run of a server: how long it lasts, and since when it is healthy."""

from __future__ import annotations

import threading
import time
from typing import Optional

from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError
from flagscale_deploy.remote.engine.client import Client

POLL_SECONDS = 2.0


class Lifetime:
    """One run of a server, from its start. With `url`, it is healthy once that replies with 200.

    The first one has no URL: `run` itself waits until the server completes a token. `foreign` tells who else has the
    server's port, and is "" while nobody has.
    """

    def __init__(self, client: Client, url: str) -> None:
        self.polls = bool(url)
        self._began = time.monotonic()
        self._ended = threading.Event()
        self.healthy_at: Optional[float] = None
        self.hung_since: Optional[float] = None
        self.foreign = ""
        self._client = client
        if url:
            threading.Thread(target=self._poll, args=(url,), daemon=True).start()

    @property
    def seconds(self) -> float:
        """Return the seconds since its start."""
        return time.monotonic() - self._began

    @property
    def healthy_for(self) -> float:
        """Return the seconds since it became healthy, 0 if it never did; those in which it hung do not count."""
        until = time.monotonic() if self.hung_since is None else self.hung_since
        return 0.0 if self.healthy_at is None else max(0.0, until - self.healthy_at)

    def healthy(self) -> None:
        """Note that it is healthy from now on."""
        self.healthy_at = time.monotonic()

    def end(self) -> None:
        """Stop polling."""
        self._ended.set()

    def _poll(self, url: str) -> None:
        """Poll until the first 200, and no longer, to keep the server's access log clean."""
        while not self._ended.wait(POLL_SECONDS):
            try:
                status = self._client.request(url, timeout=5)[0]
                self.foreign = ""
            except ForeignListenerError as error:
                self.foreign = str(error)
            except (OSError, ValueError):
                continue
            else:
                if status == 200:
                    self.healthy()
                    return
