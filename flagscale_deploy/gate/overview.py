"""What the gate answers by itself: which models there are, and which are ready."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import aiohttp

from flagscale_deploy.gate.upstreams import Upstream, Upstreams, get_json

FRESH_SECONDS = 1.0
Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """A value that is asked for once a second at most, by however many clients."""

    def __init__(self, ask: Callable[[], Awaitable[Value]]) -> None:
        self._ask = ask
        self._task: asyncio.Task[Value] | None = None
        self._until = 0.0

    async def get(self) -> Value:
        """Return the value; several who ask at the same time wait for one answer."""
        if self._task is None or (self._task.done() and time.monotonic() >= self._until):
            self._task = asyncio.create_task(self._fresh())
        return await asyncio.shield(self._task)

    async def _fresh(self) -> Value:
        try:
            return await self._ask()
        finally:
            self._until = time.monotonic() + FRESH_SECONDS


async def ready_models(
    client: aiohttp.ClientSession, upstreams: Upstreams, models: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """Return "ready" for each model of which a server answers `/health`, else "none"."""
    servers = upstreams.get(url for urls in models.values() for url in urls)
    replies = await asyncio.gather(*(get_json(client, server, "/health", {}) for server in servers))
    well = {server.url for server, reply in zip(servers, replies, strict=True) if reply is not None and reply[0] == 200}
    return {name: "ready" if well.intersection(urls) else "none" for name, urls in models.items()}


async def list_models(
    client: aiohttp.ClientSession,
    upstreams: Upstreams,
    models: Mapping[str, tuple[str, ...]],
    headers: Mapping[str, str],
) -> dict[str, object]:
    """Return the entries of `/v1/models` of all servers by name: of the models that are served, the first of each."""
    servers = upstreams.get(url for urls in models.values() for url in urls)
    replies = await asyncio.gather(*(get_json(client, server, "/v1/models", headers) for server in servers))
    entries = {server.url: _entries(server, reply) for server, reply in zip(servers, replies, strict=True)}
    merged: dict[str, object] = {}
    for name, urls in models.items():
        of_servers = [entries[url][name] for url in urls if name in entries[url]]
        if of_servers:
            merged[name] = of_servers[0]
    return merged


def _entries(_server: Upstream, reply: tuple[int, bytes] | None) -> dict[str, object]:
    if reply is None or reply[0] != 200:
        return {}
    try:
        document = json.loads(reply[1])
    except (ValueError, RecursionError):
        return {}
    data = document.get("data") if isinstance(document, dict) else None
    listed = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    return {entry["id"]: entry for entry in listed if isinstance(entry.get("id"), str)}
