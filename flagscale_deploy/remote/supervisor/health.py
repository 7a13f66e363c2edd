"""One life of a server: how long it lasts, and since when it is healthy."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Optional

from flagscale_deploy.remote.engine import openai

ASK_SECONDS = 2.0


class Life:
    """One life of a server, from its start; with `url`, it is healthy once that answers 200.

    Its first one has none: there `run` asks, and for a token.
    """

    def __init__(self, url: str) -> None:
        self.asks = bool(url)
        self._began = time.monotonic()
        self._over = threading.Event()
        self.healthy_at: Optional[float] = None
        if url:
            threading.Thread(target=self._ask, args=(url,), daemon=True).start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def healthy_for(self) -> float:
        return 0.0 if self.healthy_at is None else time.monotonic() - self.healthy_at

    def healthy(self) -> None:
        self.healthy_at = time.monotonic()

    def end(self) -> None:
        self._over.set()

    def _ask(self, url: str) -> None:
        """Nobody is asked any more once it has answered: its log is for requests."""
        while not self._over.wait(ASK_SECONDS):
            with contextlib.suppress(OSError, ValueError):
                if openai.request(url, timeout=5)[0] == 200:
                    self.healthy()
                    return
