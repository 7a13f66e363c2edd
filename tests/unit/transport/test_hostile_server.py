"""A server, or whoever is in between, sends what nobody has asked for: the operator keeps none of it."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_USERAUTH_FAILURE,
)

from flagscale_deploy.errors import ConnectError, TcpError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.ssh import SshConnection
from flagscale_deploy.transport.ssh_transport import Transport
from tests.unit.transport import loopback
from tests.unit.transport.loopback import Server, load_key, new_key

TEXT, COUNT, KEPT = "x" * 20_000, 100, 1 << 18
MOST = (1 << 32) - 1
"""The largest number of a message."""


def bodies(at: int) -> list[paramiko.Message]:
    """Return messages with the fields that those of SSH begin with, behind their numbers."""
    made = []
    shapes = ((1000 + at, f"{at}{TEXT}"), (0, f"{at}{TEXT}"), (None, f"session{at}"), (None, TEXT), (MOST, TEXT))
    for first, text in shapes:
        message = paramiko.Message()
        if first is not None:
            message.add_int(first)
            message.add_int(1)
        for part in (text, TEXT):
            message.add_string(part)
        message.add_int(at)
        made.append(paramiko.Message(message.asbytes()))
    return made


@pytest.mark.parametrize("shape", range(5))
def test_no_message_that_nobody_asked_for_is_kept(shape: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport: Any = Transport(ours)
        transport.active = True
        transport._send_message = transport._send_user_message = lambda _message: None
        channel: Any = paramiko.Channel(0)
        transport._channels.put(0, channel)
        channel._set_transport(transport)
        handlers = dict(transport._handler_table)
        waiting = (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA)  # what waits to be read is bounded by the window
        for number, take in transport._channel_handler_table.items():
            if number not in waiting:
                handlers[number] = partial(take, channel)
        assert len(handlers) > 14
        tracemalloc.start()
        try:
            for number, take in handlers.items():
                before = tracemalloc.get_traced_memory()[0]
                for at in range(COUNT):
                    with suppress(Exception):  # it ends the connection
                        take(bodies(at)[shape])
                kept = tracemalloc.get_traced_memory()[0] - before
                assert kept < KEPT, f"message {number}: {kept} bytes of {COUNT * len(TEXT)}"
        finally:
            tracemalloc.stop()


def reach(home: Path, server: Server, key: str, timeout: float = 10) -> SshConnection:
    (home / ".ssh/known_hosts").write_text(server.line() + "\n")
    identity = home / ".ssh/identity"
    identity.write_text(key)
    identity.chmod(0o600)
    host = Host("box", "127.0.0.1", port=server.port, user="operator", identity_file=str(identity))
    return SshConnection(host, timeout)


def test_a_server_that_takes_its_time_over_each_key_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = []

    def slowly(_door: object, _user: str, key: paramiko.PKey) -> int:
        offered.append(key)
        threading.Event().wait(0.8)
        return paramiko.common.AUTH_FAILED

    monkeypatch.setattr(loopback._Door, "check_auth_publickey", slowly)
    key = new_key()
    with Server(load_key(key)) as server:
        connection = reach(home, server, key, timeout=1)
        options = []
        for at in range(20):
            path = home / f"key{at}"
            path.write_text(new_key())
            path.chmod(0o600)
            options.append(f"-i {path}")
        host = connection.host
        connection = SshConnection(
            Host(host.name, host.address, port=host.port, user=host.user, ssh_options=" ".join(options)), 1
        )
        with pytest.raises(TcpError, match=r"no answer from .* in time"):
            connection.open()
    assert len(offered) < 10


MALFORMED = {
    "a message that there is not": b"\xff",
    "no text": bytes([MSG_CHANNEL_OPEN_FAILURE]) + bytes(8) + b"\0\0\0\x02\xff\xfe",
    "a login's message": bytes([MSG_USERAUTH_FAILURE]) + b"\0\0\0\x02\xff\xfe\0",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_ssh_does_not_have_is_an_error_of_the_connection(
    home: Path, monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    """So `stop` says UNKNOWN of the host, and not that something failed there."""

    def answer(door: Any, _kind: str, _number: int) -> int:
        malformed = paramiko.Message()
        malformed.add_bytes(message)
        door._transport._send_message(malformed)
        return int(paramiko.common.OPEN_SUCCEEDED)

    monkeypatch.setattr(loopback._Door, "check_channel_request", answer)
    key = new_key()
    with Server(load_key(key)) as server:
        connection = reach(home, server, key)
        with pytest.raises(ConnectError):
            connection.start("true").read(5)
        connection.close()
