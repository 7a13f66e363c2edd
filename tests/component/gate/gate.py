"""Start the gate as it runs on a host: its files in a folder, in a process of their own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flagscale_deploy.gate.sources import files

SECONDS = 60.0
KEYS = {"alice": "sk-alice-0123456789", "bob": "sk-bob-9876543210"}
ALICE = {"Authorization": f"Bearer {KEYS['alice']}"}
INTERNAL = "internal-key-of-this-run"
_LISTENS = re.compile(r"listens on \S+ ports (\d+)(?:, (\d+))?")


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until something is so; fail after a minute."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


class Gate:
    """A gate, with its files below a folder."""

    def __init__(self, folder: Path, models: dict[str, list[str]], **settings: Any) -> None:
        self.folder = folder
        self.config_file, self.log = folder / "gate.json", folder / "gate.log"
        self.access_log = folder / "gate_access.log"
        self.keys_file, self.internal_file = folder / "gate-keys.json", folder / "internal-key"
        for name, text in files().items():
            path = folder / "gate" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.write_keys(KEYS)
        self._write_private(self.internal_file, INTERNAL)
        self.config: dict[str, Any] = {
            "deployment": "qwen", "run_id": "r1", "host": "127.0.0.1", "port": 0, "metrics_port": 0, "models": models,
            "keys": str(self.keys_file), "internal_key": str(self.internal_file), "access_log": str(self.access_log),
        }  # fmt: skip
        self.write(**settings)
        self.port = self.metrics_port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Gate:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with self.log.open("wb") as log:
            command = [sys.executable, str(self.folder / "gate"), str(self.config_file)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        wait_until(lambda: _LISTENS.search(self.log.read_text()) or self.process.poll() is not None)  # type: ignore[union-attr]
        match = _LISTENS.search(self.log.read_text())
        assert match, self.log.read_text()
        self.port, self.metrics_port = int(match[1]), int(match[2] or 0)
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def write(self, **settings: Any) -> None:
        """Write gate.json with other settings."""
        self.config |= settings
        self._replace(self.config_file, json.dumps(self.config))

    def write_keys(self, keys: dict[str, str]) -> None:
        self._write_private(self.keys_file, json.dumps(keys))

    def _write_private(self, path: Path, text: str) -> None:
        self._replace(path, text)

    def _replace(self, path: Path, text: str) -> None:
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(path)

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    def line(self, request: str | None) -> dict[str, Any]:
        """Return the line of a request; it is written just after the client has its reply."""
        wait_until(lambda: self.access_log.exists() and any(line["request"] == request for line in self.logged()))
        return next(line for line in self.logged() if line["request"] == request)

    def metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=SECONDS)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def memory(self) -> float:
        """Return its resident memory in MiB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Reply:
    """A reply of the gate, read to its end."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content

    @property
    def identity(self) -> str | None:
        return self.headers["x-request-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def ask(
    gate: Gate,
    path: str = "/v1/chat/completions",
    body: object = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> Reply:
    """Send one request, as alice if no headers are given, and return the whole reply."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", gate.port, timeout=SECONDS)
        if trust is None
        else http.client.HTTPSConnection("127.0.0.1", gate.port, timeout=SECONDS, context=trust)
    )
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(
            method or ("GET" if body is None else "POST"), path, content, ALICE if headers is None else headers
        )
        reply = connection.getresponse()
        return Reply(reply.status, reply.headers, reply.read())
    finally:
        connection.close()


def raw(gate: Gate, content: bytes) -> bytes:
    """Send bytes, and return what comes until the gate closes; the sender closes its side never."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=SECONDS) as connection:
        connection.sendall(content)
        received = bytearray()
        while piece := _receive(connection):
            received += piece
        return bytes(received)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def begin_stream(gate: Gate, body: dict[str, Any], headers: dict[str, str] | None = None) -> socket.socket:
    """Send a request for a stream and return the connection when the first event has come."""
    connection = socket.create_connection(("127.0.0.1", gate.port), timeout=SECONDS)
    content = json.dumps({"stream": True, **body}).encode()
    lines = {"Host": "gate", "Content-Length": str(len(content)), **(ALICE if headers is None else headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + content)
    received = b""
    while b"data: " not in received:
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    return connection
