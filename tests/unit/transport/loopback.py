"""An SSH server on loopback, in this process: for what only a real handshake shows."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from types import TracebackType

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_FAILED_RESOURCE_SHORTAGE,
    OPEN_SUCCEEDED,
)
from typing_extensions import Self


def new_key() -> str:
    """Return a private Ed25519 key as OpenSSH writes it."""
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode()
    )


def load_key(text: str) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text))


class Listener:
    """A port of this machine, whose connections `take` gets one after the other."""

    port: int = 0

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def take(self, connection: socket.socket) -> None:
        """Take a connection."""
        raise NotImplementedError

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.take(connection)


@dataclass
class Server(Listener):
    """Lets in who has the `client_key`, and runs their commands with /bin/sh."""

    client_key: paramiko.PKey
    host_key: paramiko.PKey = field(default_factory=lambda: load_key(new_key()))
    port: int = 0
    sessions: int = 0
    sends_no_status: bool = False
    """Whether it ends a command's output and never sends its exit status."""
    ignores_commands: bool = False
    """Whether it lets a client wait for the answer to its request for a command."""
    most_channels: int = 1000
    """How many channels it opens in a connection."""
    transports: list[paramiko.Transport] = field(default_factory=list)

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, e, tb)
        for transport in self.transports:
            transport.close()
            transport.join(5)

    def line(self, port: int = 0) -> str:
        """Its line in known_hosts; `port`: that of a relay before it."""
        return f"[127.0.0.1]:{port or self.port} {self.host_key.get_name()} {self.host_key.get_base64()}"

    def take(self, connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        self.transports.append(transport)
        transport.add_server_key(self.host_key)
        with contextlib.suppress(paramiko.SSHException, EOFError):  # who connected may not like our key
            transport.start_server(server=_Door(self, transport))


class _Door(paramiko.ServerInterface):
    def __init__(self, server: Server, transport: paramiko.Transport) -> None:
        self._server, self._transport = server, transport

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == "operator" and key == self._server.client_key
        return AUTH_SUCCESSFUL if right else AUTH_FAILED

    def check_channel_request(self, _kind: str, _chanid: int) -> int:
        if self._is_full():
            return OPEN_FAILED_RESOURCE_SHORTAGE
        self._server.sessions += 1
        return OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, _origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if self._is_full():
            return OPEN_FAILED_RESOURCE_SHORTAGE
        try:
            there = socket.create_connection(destination, 5)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        threading.Thread(target=self._forward, args=(chanid, there), daemon=True).start()
        return OPEN_SUCCEEDED

    def _is_full(self) -> bool:
        channels: list[paramiko.Channel] = self._transport._channels.values()  # type: ignore[attr-defined]
        return sum(not channel.closed for channel in channels) >= self._server.most_channels

    def _forward(self, number: int, there: socket.socket) -> None:
        while (channel := self._transport._channels.get(number)) is None:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)
        _join(there, channel)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._server.ignores_commands:
            threading.Event().wait(5)  # the server answers other channels and keepalives meanwhile
        if self._server.sends_no_status:
            threading.Thread(target=channel.shutdown_write, daemon=True).start()
            return True
        threading.Thread(target=_execute, args=(channel, command), daemon=True).start()
        return True


class Relay(Listener):
    """A port before that of a server. It closes the first connections, and passes nothing on while `paused` is set."""

    def __init__(self, port: int, refusals: int = 0) -> None:
        self._target, self.refusals = port, refusals
        self.connections = 0
        self.paused = threading.Event()

    def take(self, connection: socket.socket) -> None:
        self.connections += 1
        if self.connections <= self.refusals:
            connection.sendall(b"Exceeded MaxStartups\r\n")
            connection.close()
        else:
            _join(connection, socket.create_connection(("127.0.0.1", self._target), 5), self.paused)


def _join(one: socket.socket, other: socket.socket, paused: threading.Event | None = None) -> None:
    """Pass on what comes on either side, until both have ended."""
    for source, target in ((one, other), (other, one)):
        source.settimeout(None)
        threading.Thread(target=_pump, args=(source, target, paused), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, paused: threading.Event | None) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(65536):
            while paused is not None and paused.is_set():
                threading.Event().wait(0.05)
            target.sendall(data)
    with contextlib.suppress(OSError, EOFError):
        target.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError, EOFError):
        target.close()


def _execute(channel: paramiko.Channel, command: bytes) -> None:
    with contextlib.suppress(EOFError, OSError):  # whoever asked has hung up
        _answer(channel, command)


def _answer(channel: paramiko.Channel, command: bytes) -> None:
    with (
        channel,
        subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        assert process.stderr
        feeding = threading.Thread(target=_feed, args=(channel, process), daemon=True)
        feeding.start()
        output, errors = process.stdout.read(), process.stderr.read()
        channel.sendall(output)
        channel.sendall_stderr(errors)
        channel.send_exit_status(process.wait())
        channel.shutdown_write()
        feeding.join(5)


def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    try:
        while data := channel.recv(65536):
            process.stdin.write(data)
            process.stdin.flush()
        process.stdin.close()
    except OSError:
        return
