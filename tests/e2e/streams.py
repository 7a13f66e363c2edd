"""Clients that stream from a deployment all the time, and count what fails."""

from __future__ import annotations

import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.lab.product.operator import eventually

CLIENTS = 8
TOKENS = 40
QUESTION = {
    "model": "tiny",
    "prompt": "Go on",
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


class Streams:
    """Eight clients of `endpoint` (`https://host:port/v1`).

    `failed` has what went wrong, `first_tokens` the seconds until the first token of each stream that came whole: all
    of its tokens, then `[DONE]`.
    """

    def __init__(self, endpoint: str, key: str, trusted: Path) -> None:
        self.failed: list[str] = []
        self.first_tokens: list[float] = []
        self._over = threading.Event()
        self._tls = ssl.create_default_context(cafile=str(trusted))
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._request = Request(f"{endpoint}/completions", json.dumps(QUESTION).encode(), headers)
        self._threads = [threading.Thread(target=self._go_on) for _ in range(CLIENTS)]

    def __enter__(self) -> Streams:
        for thread in self._threads:
            thread.start()
        self.prove()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def prove(self) -> None:
        """Wait until there are some more whole streams, and none has failed."""
        before = len(self.first_tokens)
        assert eventually(lambda: self.failed or len(self.first_tokens) >= before + 2 * CLIENTS)
        assert self.failed == []

    def figures(self) -> str:
        """Return how many streams there were, and how long the slowest took to begin."""
        counts = f"{len(self.first_tokens)} streams whole, {len(self.failed)} failed"
        return f"{counts}; the first token came after {max(self.first_tokens):.2f} s at most"

    def _go_on(self) -> None:
        while not self._over.is_set():
            try:
                self.first_tokens.append(self._stream())
            except (OSError, AssertionError, LookupError, ValueError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")

    def _stream(self) -> float:
        """Read one stream to its end; return the seconds until its first token."""
        began, first, lines = time.monotonic(), 0.0, list[str]()
        with urlopen(self._request, timeout=120, context=self._tls) as reply:
            for line in reply:
                if line.startswith(b"data: "):
                    first = first or time.monotonic() - began
                    lines.append(line.decode().removeprefix("data: ").strip())
        assert lines[-1] == "[DONE]", f"cut after {lines[-1:]}"
        end: dict[str, Any] = json.loads(lines[-2])
        assert end["usage"]["completion_tokens"] == TOKENS, end
        return first
