"""A stand-in for vLLM's server: it answers as that does, by what a request asks for, and notes all that reaches it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "qwen"


@dataclass
class Arrival:
    """A request that reached the stand-in."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for other, value in self.headers if other.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None


@dataclass(eq=False)
class StandIn:
    """Serves on a port of 127.0.0.1, in a thread of its own; a body says how to answer, beside OpenAI's keys.

    `tokens` events come, one every `every` seconds; after `break_after` of them the connection is broken off, or before
    the reply with `break`; `status` is the reply's, which comes after `wait` seconds; with `hold` all events but the
    first come after `release`, and so does a reply that is no stream.
    """

    models: tuple[str, ...] = (MODEL,)
    key: str | None = None
    arrivals: list[Arrival] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    """Ids of requests whose client went away before their end."""
    open: int = 0
    most_open: int = 0
    healthy: bool = True
    port: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._released = asyncio.Event()
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> set[str]:
        return {arrival.target.partition("?")[0] for arrival in self.arrivals}

    def __enter__(self) -> StandIn:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def listen(self) -> None:
        """Accept connections, again on the same port after `leave`."""
        self._run(self._listen)

    def leave(self) -> None:
        """Close the port and all connections, as a server that is killed."""
        self._run(self._leave)

    def release(self) -> None:
        """Let the streams go on that hold just now."""
        self._loop.call_soon_threadsafe(self._released.set)
        self._released = asyncio.Event()

    def _run(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(act(), self._loop).result(30)

    async def _listen(self) -> None:
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._listener = await self._loop.create_server(self._server, "127.0.0.1", self.port, backlog=4096)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _leave(self) -> None:
        if self._listener is not None and self._server is not None:
            self._listener.close()
            for connection in self._server.connections:
                connection.force_close()
            await self._server.shutdown(0.01)
        self._listener = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        arrival = Arrival(request.method, request.raw_path, list(request.headers.items()), body)
        self.arrivals.append(arrival)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._reply(request, body)
        except asyncio.CancelledError:
            self.aborted.append(arrival.header("x-request-id") or "")
            raise
        finally:
            self.open -= 1

    async def _reply(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if request.raw_path == "/health":
            return web.Response(status=200 if self.healthy else 503)
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        if request.raw_path == "/v1/models":
            data = [{"id": model, "object": "model", "root": f"of {self.port}"} for model in self.models]
            return web.json_response({"object": "list", "data": data})
        asked = json.loads(body) if body.startswith(b"{") else {}
        if asked.get("break"):
            assert request.transport is not None
            request.transport.abort()
        await asyncio.sleep(asked.get("wait", 0.0))
        if not asked.get("stream"):
            if asked.get("hold"):
                await self._released.wait()
            replied = {"path": request.raw_path, "port": self.port, "bytes": len(body)}
            return web.json_response(replied, status=asked.get("status", 200))
        return await self._stream(request, asked)

    async def _stream(self, request: web.BaseRequest, asked: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        released = self._released
        for number in range(asked.get("tokens", 3)):
            if number == asked.get("break_after"):
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(event(number))
            await asyncio.sleep(asked.get("every", 0.0))
            if asked.get("hold"):
                await released.wait()
        await response.write(b"data: [DONE]\n\n")
        return response


def event(number: int) -> bytes:
    """Return the event of a token, of about the length that vLLM's have."""
    content = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": f"token {number}"}}], "pad": "x" * 100}
    return f"data: {json.dumps(content)}\n\n".encode()
