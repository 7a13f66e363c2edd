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
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED


def new_key() -> str:
    """Return a private Ed25519 key as OpenSSH writes it."""
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode()
    )


def load_key(text: str) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text))


@dataclass
class Server:
    """Lets in who has the `client_key`, and runs their commands with /bin/sh."""

    client_key: paramiko.PKey
    host_key: paramiko.PKey = field(default_factory=lambda: load_key(new_key()))
    port: int = 0
    sessions: int = 0
    sends_no_status: bool = False
    """Whether it ends a command's output and never sends its exit status."""
    ignores_commands: bool = False
    """Whether it lets a client wait for the answer to its request for a command."""
    transports: list[paramiko.Transport] = field(default_factory=list)

    def __enter__(self) -> Server:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for transport in self.transports:
            transport.close()
            transport.join(5)

    def line(self) -> str:
        """Its line in known_hosts."""
        return f"[127.0.0.1]:{self.port} {self.host_key.get_name()} {self.host_key.get_base64()}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            self.transports.append(transport)
            transport.add_server_key(self.host_key)
            try:
                transport.start_server(server=_Door(self))
            except (paramiko.SSHException, EOFError):
                continue  # who connected did not like our key


class _Door(paramiko.ServerInterface):
    def __init__(self, server: Server) -> None:
        self._server = server

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == "operator" and key == self._server.client_key
        return AUTH_SUCCESSFUL if right else AUTH_FAILED

    def check_channel_request(self, _kind: str, _chanid: int) -> int:
        self._server.sessions += 1
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._server.ignores_commands:
            threading.Event().wait(5)  # the server answers other channels and keepalives meanwhile
        if self._server.sends_no_status:
            threading.Thread(target=channel.shutdown_write, daemon=True).start()
            return True
        threading.Thread(target=_execute, args=(channel, command), daemon=True).start()
        return True


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
