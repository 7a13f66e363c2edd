"""Refusals, as OpenAI's API words them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from aiohttp import web

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    417: "invalid_request_error",
    431: "invalid_request_error",
}
RETRY_AFTER = {"Retry-After": "1"}


class Refusal(Exception):
    """A request that the gate answers by itself, with an error."""

    def __init__(
        self, status: int, message: str, code: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return the reply to the client."""
        return web.Response(
            body=body(self.status, self.message, self.code),
            status=self.status,
            content_type="application/json",
            headers=self.headers,
        )


def body(status: int, message: str, code: str | None = None) -> bytes:
    """Return the JSON of an error."""
    kind = _TYPES.get(status, "server_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def unknown_model(name: str, models: Iterable[str]) -> Refusal:
    """Return the refusal of a model that this deployment does not serve, with those that it does."""
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    message = f"The model `{shown}` does not exist. This deployment serves: {', '.join(models)}"
    return Refusal(404, message, "model_not_found")


def unavailable(message: str) -> Refusal:
    """Return the refusal of a request that may be sent again soon."""
    return Refusal(503, message, "unavailable", headers=RETRY_AFTER)
