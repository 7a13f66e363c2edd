"""Ask servers for a token now and then only, while somebody watches them: it costs them a completion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf

from flagscale_deploy.remote.messages.status import InspectReply

TOKEN_EVERY_SECONDS = 30.0


class TokenLooks:
    """What came of the last look that asked for tokens, which stands for servers that only /health was asked of since.

    A look asks for tokens every 30 s, and where the look before found a server's health changed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at = -inf
        self._tokens: dict[tuple[str, str], tuple[bool | None, str]] = {}
        self._healthy: set[tuple[str, str]] = set()

    @property
    def due(self) -> bool:
        """Return whether the next look asks for tokens."""
        return self._clock() >= self._asked_at + TOKEN_EVERY_SECONDS

    def note(self, replies: Mapping[str, InspectReply], asked: bool) -> None:
        """Note the tokens of a look that asked for them; else set those noted before, of servers that are healthy."""
        servers = {
            (host, name): server for host, reply in replies.items() for name, server in reply["instances"].items()
        }
        healthy = {key for key, server in servers.items() if server["health"] == 200}
        if asked:
            self._asked_at = self._clock()
            self._tokens = {key: (server["token"], server["why"]) for key, server in servers.items()}
        elif healthy != self._healthy:
            self._asked_at = -inf
        for key in healthy & self._tokens.keys() if not asked else ():
            servers[key]["token"], servers[key]["why"] = self._tokens[key]
        self._healthy = healthy
