"""A request's body: read up to a limit, and asked which model it is for."""

from __future__ import annotations

import json
import re

from aiohttp import web

from flagscale_deploy.gate.connections import Connection
from flagscale_deploy.gate.errors import Refusal, unavailable

SLOWEST = 1024.0
"""Bytes a second that a body has to have on average, after the idle time."""
AT_ONCE = 16
"""Bodies of the largest size that all requests together may hold while they wait to be sent on."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="([^"\r\n]{0,100})"', re.IGNORECASE)
LONGEST_NAME = 1024
MOST_VALUES = 1 << 20
"""Commas and brackets of JSON: 32 MiB of `[],` would keep all clients waiting for 5 s, and take 800 MiB."""
MOST_PARTS = 1000


class Bodies:
    """The memory that bodies take until they are sent on."""

    def __init__(self) -> None:
        self.held = 0

    def take(self, size: int, limit: int) -> None:
        """Count a piece; raise Refusal if all together are too large."""
        if self.held + size > AT_ONCE * limit:
            raise unavailable("Too many large requests at the same time")
        self.held += size

    def give_back(self, size: int) -> None:
        """Count bytes as gone."""
        self.held -= size


async def read(request: web.BaseRequest, connection: Connection, bodies: Bodies, limit: int) -> bytes:
    """Return the whole body, counted in `bodies`; raise Refusal if it is too large, or not as it was sent."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "The body is compressed; send it as it is")
    too_large = Refusal(413, f"The body is larger than {limit} bytes", "request_too_large")
    if (request.content_length or 0) > limit:
        raise too_large
    await _let_it_come(request)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.content.iter_any():
            if size + len(piece) > limit:
                raise too_large
            bodies.take(len(piece), limit)
            size += len(piece)
            pieces.append(piece)
            connection.extend(size / SLOWEST)
    except BaseException as error:
        bodies.give_back(size)
        if isinstance(error, web.RequestPayloadError):
            raise Refusal(400, "The body is not as its headers say", "invalid_body") from error
        raise
    return b"".join(pieces)


async def _let_it_come(request: web.BaseRequest) -> None:
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise Refusal(417, "Expect: only 100-continue is understood")
    await request.writer.write(_CONTINUE)
    request.writer.output_size = 0


def model_of(body: bytes, content_type: str) -> str | None:
    """Return the model that a body names, None if it names none; raise Refusal if it cannot be read."""
    if not body:
        return None
    if content_type.lower().startswith("multipart/form-data"):
        return _of_form(body, content_type)
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise Refusal(413, f"The body has more than {MOST_VALUES} values", "request_too_large")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is not JSON", "invalid_json") from None
    if not isinstance(document, dict):
        raise Refusal(400, "The body is not a JSON object", "invalid_json")
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise Refusal(400, "`model` is not a text", "invalid_model")
    return model or None


def _of_form(body: bytes, content_type: str) -> str | None:
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise Refusal(400, "The form has no boundary", "invalid_form")
    delimiter = b"--" + (match[1] or match[2]).encode("latin-1", "replace")
    models = set()
    if body.count(delimiter) > MOST_PARTS:
        raise Refusal(413, f"The form has more than {MOST_PARTS} parts", "request_too_large")
    for part in body.split(delimiter)[1:]:
        head, _, value = part[: LONGEST_NAME * 4].partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is not None and name[1] == b"model":
            models.add(value.partition(b"\r\n")[0][:LONGEST_NAME])
    if len(models) > 1:
        raise Refusal(400, "The form names several models", "invalid_form")
    return models.pop().decode("utf-8", "replace") or None if models else None
