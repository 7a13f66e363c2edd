"""Tell from the counters of NIXL whether KV cache was transferred between the engines of prefill and decode pools."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Dict, Optional

from flagscale_deploy.remote.engine import metrics, openai

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import WatchArguments

SECONDS = 120.0
"""How long requests may fail, or transfer nothing, once all engines answer. Stalls of 34 s were seen (vLLM 0.32)."""
COUNTED_SECONDS, POLL_SECONDS = 15.0, 0.2
"""An engine counts a transfer a moment after the token."""


class Transfers:
    """The counters of the engines behind a router, before and after requests.

    The engine that fetches counts: that is one of decode.
    """

    def __init__(self, args: WatchArguments) -> None:
        asked = args["transfers"]
        self._urls = asked["urls"]
        self._client = openai.client(args["deployment"], args["host"], trust=asked["trust"])
        self._before: Dict[str, float] = {}
        self._end: Optional[float] = None

    @property
    def overdue(self) -> bool:
        """Return whether cache should have been transferred by now."""
        return self._end is not None and time.monotonic() >= self._end

    def remember(self) -> None:
        """Read the counters before the first request."""
        if self._end is None:
            self._before = self._read()
            if len(self._before) == len(self._urls):
                self._end = time.monotonic() + SECONDS

    def missing(self) -> str:
        """Return "" once a counter has grown since `remember`; else, after some seconds, what was seen instead."""
        end = time.monotonic() + COUNTED_SECONDS
        while True:
            now = self._read()
            if any(count > self._before.get(url, 0.0) for url, count in now.items()):
                return ""
            if time.monotonic() >= end:
                silent = [url for url in self._urls if url not in now]
                none = "a token came, but NIXL counts no bytes that were transferred"
                return none + (": no metrics of %s" % ", ".join(silent) if silent else "")
            time.sleep(POLL_SECONDS)

    def _read(self) -> Dict[str, float]:
        figures = {url: metrics.ask(self._client, url) for url in self._urls}
        return {url: counted.get("kv_received", 0.0) for url, counted in figures.items() if counted is not None}
