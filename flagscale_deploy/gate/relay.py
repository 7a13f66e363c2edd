"""Send a request to a server and pass its reply on as it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from flagscale_deploy.gate import headers
from flagscale_deploy.gate.access import Record
from flagscale_deploy.gate.body import Bodies, model_of, read
from flagscale_deploy.gate.connections import Connection
from flagscale_deploy.gate.errors import RETRY_AFTER, Refusal, unavailable, unknown_model
from flagscale_deploy.gate.metrics import Metrics
from flagscale_deploy.gate.paths import Target
from flagscale_deploy.gate.state import State
from flagscale_deploy.gate.upstreams import ConnectError, Message, Upstream, Upstreams, send

HOLD_STEP = 0.2
"""Seconds between two looks for a server, while a request waits for one."""
log = logging.getLogger("gate")


class ServerCutError(Exception):
    """A server broke its reply off, or was silent for too long."""


@dataclass(eq=False)
class Lease:
    """A reply that has begun, and the server that it comes from."""

    server: Upstream
    reply: aiohttp.ClientResponse


class Relay:
    """What all requests that are passed on share."""

    def __init__(self, state: State, client: aiohttp.ClientSession, metrics: Metrics, upstreams: Upstreams) -> None:
        self._state, self._client, self._metrics, self._upstreams = state, client, metrics, upstreams
        self._bodies = Bodies()

    async def pass_on(
        self, request: web.BaseRequest, connection: Connection, target: Target, record: Record
    ) -> web.StreamResponse:
        """Return the reply of a server, passed on to its end. Raises Refusal where there is none."""
        limit = self._state.config.body_bytes
        content = await read(request, connection, self._bodies, limit)
        size = len(content)
        connection.wait_for_server()
        try:
            model = model_of(content, request.headers.get("Content-Type", ""))
            passed = headers.to_server(request.headers, self._state.internal_key, record.request)
            message = Message(request.method, target.path + target.query, passed, content)
            del content
            urls = self._urls(model, message)
            record.model = model or next(
                name for name, of_model in self._state.config.models.items() if of_model == urls
            )
        except BaseException:
            self._bodies.give_back(size)
            raise
        self._metrics.began(record.model)
        try:
            try:
                lease = await self._send(message, lambda: self._urls(model, message))
            finally:
                message.body = b""
                self._bodies.give_back(size)
            return await self._stream(request, connection, lease, record)
        finally:
            seconds = time.monotonic() - record.began
            self._metrics.ended(record.model, record.sent, seconds, record.first_byte)

    def _urls(self, model: str | None, message: Message) -> tuple[str, ...]:
        """Return the servers for a model; a request that names none is for the only one."""
        models = self._state.config.models
        if model is not None:
            if model not in models:
                raise unknown_model(model, models)
            return models[model]
        different = dict.fromkeys(models.values())
        if len(different) == 1 or (message.method in ("GET", "HEAD") and not message.target.startswith("/v1/")):
            return next(iter(different))
        raise Refusal(400, f"`model` is missing. This deployment serves: {', '.join(models)}", "model_missing")

    async def _send(self, message: Message, urls: Callable[[], tuple[str, ...]]) -> Lease:
        """Try the servers in turn, again and again for the time of `hold`; none that is taken out meanwhile."""
        until = time.monotonic() + self._state.config.hold
        while True:
            for server in self._upstreams.get(urls()):
                if server.url not in urls():
                    continue
                lease = await self._try(server, message)
                if lease is None:
                    continue
                if lease.reply.status != 503 or time.monotonic() >= until:
                    return lease
                self._give_up(lease)
            left = until - time.monotonic()
            if left <= 0:
                raise unavailable("No instance of the model is ready")
            await asyncio.sleep(min(HOLD_STEP, left))

    async def _try(self, server: Upstream, message: Message) -> Lease | None:
        """Return the reply of a server; None if it cannot be reached."""
        failed_before = server.late
        server.open += 1
        server.used = time.monotonic()
        try:
            reply = await send(self._client, server, message, self._state.config.silence_seconds)
        except BaseException as error:
            server.open -= 1
            if not isinstance(error, ConnectError):
                raise
            if not failed_before:  # once, however many requests come
                log.warning("%s", error)
            return None
        return Lease(server, reply)

    def _give_up(self, lease: Lease) -> None:
        """Close the connection where the reply has not ended: the server drops the request."""
        lease.server.open -= 1
        lease.reply.close()

    async def _stream(
        self, request: web.BaseRequest, connection: Connection, lease: Lease, record: Record
    ) -> web.StreamResponse:
        reply = lease.reply
        try:
            if reply.status == 401:
                raise Refusal(502, "The server refuses the gate's own key", "bad_gateway")
            if not 200 <= reply.status <= 599:
                raise Refusal(502, "The server's reply has no status that ends it", "bad_gateway")
            response = web.StreamResponse(status=reply.status, headers=headers.to_client(reply.headers, record.request))
            if reply.status == 503:
                response.headers.setdefault("Retry-After", RETRY_AFTER["Retry-After"])
            record.status = reply.status
            await response.prepare(request)
            while piece := await _next_piece(reply):
                record.first_byte = record.first_byte or time.monotonic() - record.began
                connection.write()
                await response.write(piece)
                connection.wait_for_server()
                record.sent += len(piece)
            connection.write()
            await response.write_eof()
            return response
        except ServerCutError:
            self._cut(connection, record)
            return response
        finally:
            self._give_up(lease)

    def _cut(self, connection: Connection, record: Record) -> None:
        """Break the reply off, so that the client does not take it for whole."""
        record.cut = "server"
        self._metrics.cut(record.model)
        connection.abort()


async def _next_piece(reply: aiohttp.ClientResponse) -> bytes:
    """Return what has come next, empty at the end; raise ServerCutError where the reply breaks off."""
    try:
        return await reply.content.readany()
    except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError) as error:
        raise ServerCutError from error
