"""Servers in processes of their own: of a deployment, of another one, or of another user. They tell what they heard."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flagscale_deploy.remote.system.proc import MARKER

NOBODY = 65534
PR_SET_DUMPABLE = 4
HEALTHY = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def reply(body: object, status: str = "200 OK") -> str:
    """Return an HTTP reply with a text, or with JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text.encode())}\r\n\r\n{text}"


ENGINE = {
    "/health": HEALTHY,
    "/metrics": reply("vllm:num_requests_running 1.0\n"),
    "/v1/completions": reply({"choices": [{"text": " token"}], "usage": {"completion_tokens": 1}}),
    "/v1/chat/completions": reply({"choices": [{"message": {"content": "hi"}}], "usage": {"completion_tokens": 1}}),
    "/v1/models": reply({"data": [{"id": "m"}]}),
}
"""What an engine replies, by path."""


@dataclass
class StandIn:
    """A server that runs. `heard` is every request that it was sent, as it came."""

    process: subprocess.Popen[bytes]
    output: Path
    address: str

    @property
    def port(self) -> int:
        return int(json.loads(self.output.read_text().splitlines()[0])["port"])

    @property
    def url(self) -> str:
        return f"http://[{self.address}]:{self.port}" if ":" in self.address else f"http://{self.address}:{self.port}"

    @property
    def heard(self) -> list[str]:
        return [json.loads(line)["heard"] for line in self.output.read_text().splitlines()[1:]]

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def stand_in(
    folder: Path, marker: str = "", address: str = "127.0.0.1", port: int = 0, **behaviour: Any
) -> Iterator[StandIn]:
    """Start a server in a session of its own and wait until it listens.

    `replies` are raw replies by path, `anything` is what comes for other paths, `greeting` is sent before a request.
    `uid` is the user that it becomes, `certificate` a pair of files, `repeat` is sent again and again after a reply,
    every `pause` seconds. With `hold`, connections stay open; with `accept: False`, none is accepted. `processes` is
    how many processes accept from one socket, `reuse` sets SO_REUSEPORT, `only_ipv6` IPV6_V6ONLY. With `leave`, it
    stops to listen after the first connection, and keeps that.
    """
    output = folder / f"stand-in-{os.urandom(4).hex()}"
    environment = {name: value for name, value in os.environ.items() if name != MARKER}
    with output.open("wb") as heard:
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"address": address, "port": port, **behaviour})],
            stdin=subprocess.DEVNULL,
            stdout=heard,
            start_new_session=True,
            env=environment | ({MARKER: marker} if marker else {}),
        )
    server = StandIn(process, output, address)
    try:
        deadline = time.monotonic() + 20
        while not output.read_bytes().endswith(b"\n"):
            assert process.poll() is None, "it could not listen"
            assert time.monotonic() < deadline, "it does not listen in time"
            time.sleep(0.01)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def main() -> None:
    behaviour = json.loads(sys.argv[1])
    certificate = behaviour.get("certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if context is not None:
        context.load_cert_chain(*certificate)
    if behaviour.get("uid") is not None:
        os.setgroups([])
        os.setgid(behaviour["uid"])
        os.setuid(behaviour["uid"])
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a change of user hides /proc/PID/fd, until an exec
    family = socket.AF_INET6 if ":" in behaviour["address"] else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if behaviour.get("reuse"):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(behaviour.get("only_ipv6", False)))
    listener.bind((behaviour["address"], behaviour["port"]))
    listener.listen(16)
    tell({"port": listener.getsockname()[1]})
    for _ in range(behaviour.get("processes", 1) - 1):
        if not os.fork():
            break
    while not behaviour.get("accept", True):
        time.sleep(3600)
    while True:
        connection, _ = listener.accept()
        if behaviour.get("leave"):
            tell({"heard": "accepted"})
            listener.close()
            time.sleep(3600)
        threading.Thread(target=answer, args=(connection, context, behaviour), daemon=True).start()


def answer(connection: socket.socket, context: ssl.SSLContext | None, behaviour: dict[str, Any]) -> None:
    with contextlib.suppress(OSError), connection:
        wire = context.wrap_socket(connection, server_side=True) if context else connection
        wire.sendall(behaviour.get("greeting", "").encode())
        heard = b""
        while not whole(heard):
            data = wire.recv(65536)
            if not data:
                break
            heard += data
        if heard:
            tell({"heard": heard.decode("latin-1")})
        path = heard.split(b" ")[1].decode() if heard.count(b" ") > 1 else ""
        wire.sendall(behaviour.get("replies", {}).get(path, behaviour.get("anything", "")).encode())
        while behaviour.get("repeat"):
            time.sleep(behaviour.get("pause", 0))
            wire.sendall(behaviour["repeat"].encode())
        while behaviour.get("hold"):
            time.sleep(3600)


def whole(heard: bytes) -> bool:
    head, end, body = heard.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= sum(map(int, lengths))


def tell(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.path.pop(0)
    main()
