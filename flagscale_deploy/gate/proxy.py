"""One request: judged by its path, method and key; answered here, or passed on."""

from __future__ import annotations

import asyncio
from typing import cast

import aiohttp
from aiohttp import web

from flagscale_deploy.gate import headers, overview
from flagscale_deploy.gate.access import AccessLog, Record
from flagscale_deploy.gate.connections import Connection
from flagscale_deploy.gate.errors import RETRY_AFTER, Refusal, unavailable, unknown_model
from flagscale_deploy.gate.keys import presented
from flagscale_deploy.gate.metrics import Metrics
from flagscale_deploy.gate.paths import MODELS, USUAL, PathError, Target, judge, path_class
from flagscale_deploy.gate.relay import Relay
from flagscale_deploy.gate.state import State
from flagscale_deploy.gate.upstreams import Upstreams, credentials

METHODS = ("GET", "HEAD", "POST", "DELETE")
SERVER = "flagscale-deploy"
CLIENT_LEFT = 499


class Proxy:
    """Handles all requests of clients."""

    def __init__(self, state: State, client: aiohttp.ClientSession, metrics: Metrics, access: AccessLog) -> None:
        self._state, self._metrics, self._access = state, metrics, access
        self.upstreams = Upstreams()
        self._relay = Relay(state, client, metrics, self.upstreams)
        self.open = 0
        self._ready = overview.Remembered(
            lambda: overview.ready_models(client, self.upstreams, self._state.config.models)
        )
        self._listed = overview.Remembered(
            lambda: overview.list_models(
                client, self.upstreams, self._state.config.models, credentials(self._state.internal_key)
            )
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Reply to a request, and log it."""
        connection = cast(Connection, request.protocol)
        connection.begin()
        identity = headers.request_id(request.headers.getall(headers.REQUEST_ID, []))
        record = Record(identity, request.remote or "", request.method if request.method in METHODS else "other")
        self.open += 1
        try:
            response = await self._reply(request, connection, record)
            record.status = response.status
        except asyncio.CancelledError:
            record.cut = record.cut or "client"
            raise
        except ConnectionError:  # nobody reads what is written
            record.cut = record.cut or "client"
            response = web.Response(status=CLIENT_LEFT)
        finally:
            record.status = record.status or CLIENT_LEFT
            self.open -= 1
            connection.end(request.content.is_eof())
            self._metrics.count(record.key, record.model, record.status)
            self._access.write(record)
        return response

    def refused(self, status: int) -> None:
        """Count and log a request that could not be read."""
        self._metrics.count("", "", status)
        self._access.write(Record("", "", "other", status=status))

    async def _reply(self, request: web.BaseRequest, connection: Connection, record: Record) -> web.StreamResponse:
        try:
            response = await self._answer(request, connection, record)
        except Refusal as refusal:
            response = refusal.response()
            if not request.content.is_eof():
                response.force_close()
        if not response.prepared:
            response.headers[headers.REQUEST_ID] = record.request
            response.headers["Server"] = SERVER
            record.sent = response.content_length or 0
        return response

    async def _answer(self, request: web.BaseRequest, connection: Connection, record: Record) -> web.StreamResponse:
        config = self._state.config
        if sum(len(name) + len(value) + 4 for name, value in request.raw_headers) > config.header_bytes:
            raise Refusal(431, f"The headers are larger than {config.header_bytes} bytes", "headers_too_large")
        try:
            target = judge(request.raw_path, config.paths)
        except PathError as error:
            raise Refusal(404 if error.normal else 400, f"{error}", "unknown_path") from error
        record.path = path_class(target.path, USUAL)
        if request.method not in METHODS:
            raise Refusal(405, f"{record.method}: not a method of this API", headers={"Allow": ", ".join(METHODS)})
        if request.headers.get("Upgrade", "").lower() == "websocket":
            raise Refusal(501, "WebSockets do not pass here", "not_implemented")
        owner = self._owner(request)
        record.key = owner or ""
        connection.named = owner is not None
        if target.path == "/health":
            _only_read(request, target.path)
            return await self._health(request, named=owner is not None)
        if owner is None:
            raise Refusal(401, "A valid key is needed: `Authorization: Bearer KEY`", "invalid_api_key",
                          headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
        if target.path == MODELS or target.model is not None:
            return await self._models(request, target)
        return await self._relay.pass_on(request, connection, target, record)

    def _owner(self, request: web.BaseRequest) -> str | None:
        """Return the name of the request's key, "" where none is asked, None where it is nobody's."""
        keys = self._state.keys
        if keys is None:
            return ""
        given = request.headers
        return keys.name(presented(given.getall("Authorization", []), given.getall("X-Api-Key", [])))

    async def _health(self, request: web.BaseRequest, *, named: bool) -> web.Response:
        """Return which models are ready: by name for holders of a key, and from this host."""
        models = await self._ready.get()
        whole = all(word == "ready" for word in models.values())
        shown = {"models": models} if named or request.remote in ("127.0.0.1", "::1") else {}
        return web.json_response(shown, status=200 if whole else 503, headers={} if whole else RETRY_AFTER)

    async def _models(self, request: web.BaseRequest, target: Target) -> web.Response:
        _only_read(request, MODELS)
        listed = await self._listed.get()
        if target.model is None and listed:
            return web.json_response({"object": "list", "data": list(listed.values())})
        if target.model is not None and target.model not in self._state.config.models:
            raise unknown_model(target.model, self._state.config.models)
        if target.model not in listed:
            raise unavailable("No instance is ready")
        return web.json_response(listed[target.model])


def _only_read(request: web.BaseRequest, path: str) -> None:
    """Raise Refusal for other methods than GET and HEAD."""
    if request.method not in ("GET", "HEAD"):
        raise Refusal(405, f"{path} can only be read", headers={"Allow": "GET, HEAD"})
