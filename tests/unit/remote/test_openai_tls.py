"""Asking a server over TLS: the certificate that it was started with is trusted, self-signed or not, and no other."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.unit.remote.living import Home


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


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
         "-keyout", key, "-out", certificate],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return certificate, key


@contextmanager
def serving(pair: tuple[Path, Path]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Completion)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("relative", [False, True])
def test_the_key_goes_to_the_server_that_was_started_and_to_nobody_else(home: Home, relative: bool) -> None:
    Completion.heard.clear()
    (home.state / "secrets" / "env").write_text("VLLM_API_KEY=sk-canary\n")
    own, other = certificate(home.path, "model.example.com"), certificate(home.path, "somebody")
    for pair, answered in ((own, True), (other, False)):
        with serving(pair) as port:
            server = {"name": "m/0", "driver": home.host, "served_name": "m", "local_url": f"https://127.0.0.1:{port}"}
            given = own[0].name if relative else str(own[0])
            home.record(instances=[{**server, "certificate": given}])
            (said,) = home.run("ask", server="m/0", messages=[], parameters={})
            assert ("answer" in said) is answered, said
    assert Completion.heard == ["Bearer sk-canary"]
    assert "certificate verify failed" in said["problem"]
