"""What is said of answers that are no completion."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.component.remote.living import Home


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """Serve the same reply to everything; yield the port."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (503, b"", "HTTP 503: Service Unavailable"),
        (503, b"No available workers", "HTTP 503: No available workers"),
        (400, b'{"error": "too long"}', 'HTTP 400: {"error": "too long"}'),
        (200, b"<html>", "HTTP 200, but not JSON: <html>"),
    ],
)
def test_an_answer_that_is_no_completion_is_told_with_its_status(
    home: Home, status: int, body: bytes, problem: str
) -> None:
    with answering(status, body) as port:
        home.record(instances=[{"name": "m/0", "served_name": "m", "local_url": f"http://127.0.0.1:{port}"}])
        assert home.run("chat", server="m/0", messages=[], parameters={}) == [{"problem": problem}]
