"""Asking a server over TLS: the certificate that it was started with is trusted, self-signed or not, and no other."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest

from tests.component.remote.living import Home
from tests.tls import certificate, serving


class Completion(BaseHTTPRequestHandler):
    heard: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.heard.append(self.headers["Authorization"])
        body = json.dumps({"choices": [{"text": " token", "message": {"content": "hi"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("relative", [False, True])
def test_the_key_goes_to_the_server_that_was_started_and_to_nobody_else(home: Home, relative: bool) -> None:
    Completion.heard.clear()
    (home.state / "secrets" / "env").write_text("VLLM_API_KEY=sk-canary\n")
    own, other = certificate(home.path, "model.example.com"), certificate(home.path, "somebody")
    for pair, answered in ((own, True), (other, False)):
        with serving(pair, Completion) as port:
            server = {"name": "m/0", "driver": home.host, "served_name": "m", "local_url": f"https://127.0.0.1:{port}"}
            given = own[0].name if relative else str(own[0])
            home.record(instances=[{**server, "certificate": given}])
            (reply,) = home.run("chat", server="m/0", messages=[], parameters={})
            assert ("answer" in reply) is answered, reply
    assert Completion.heard == ["Bearer sk-canary"]
    assert "certificate verify failed" in reply["problem"]
