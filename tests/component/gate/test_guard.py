"""Another user of the host on a server's port gets neither prompt nor key."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flagscale_deploy.gate import guard
from tests.component.gate.gate import Gate, ask, wait_until
from tests.component.gate.stand_in import MODEL, StandIn
from tests.other_user import needs_root

NOBODY = 65534
ADDRESSES = ("127.0.0.1", "::1")


@contextmanager
def stranger(listener: socket.socket, *, accepts: bool) -> Iterator[Callable[[], bytes]]:
    """Hand a listening socket that nobody made over to nobody, who may accept; yield what reads all that it got."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            connection = listener.accept()[0] if accepts else None
            while connection is not None and (piece := connection.recv(65536)):
                os.write(writing, piece)
            select.select([], [], [], 60)
        finally:
            os._exit(0)
    os.close(writing)

    def received() -> bytes:
        return os.read(reading, 65536) if select.select([reading], [], [], 0.2)[0] else b""

    try:
        yield received
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)


@contextmanager
def listening_as(uid: int, address: str, port: int = 0) -> Iterator[socket.socket]:
    """Provide a socket that listens, and is of this user as the kernel has it."""
    os.seteuid(uid)
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family, reuse_port=False)
    finally:
        os.seteuid(0)
    with listener:
        yield listener


@needs_root
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("netlink", [True, False])
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_the_kernel_tells_who_holds_a_connection(
    address: str, netlink: bool, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(query: bytes, flags: int) -> Iterator[guard.End]:
        raise OSError("a sandbox")

    if not netlink:
        monkeypatch.setattr(guard, "_ask", refuse)
    with listening_as(uid, address) as listener, socket.create_connection(listener.getsockname()[:2]) as connection:
        ends = connection.getsockname(), connection.getpeername()
        if uid:
            with pytest.raises(PermissionError, match=f"port {ends[1][1]} is held by another user .uid {uid}."):
                guard.verify(*ends)
        else:
            guard.verify(*ends)


@needs_root
@pytest.mark.parametrize("netlink", [True, False])
def test_another_user_on_the_same_port_of_another_address_changes_nothing(
    netlink: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(query: bytes, flags: int) -> Iterator[guard.End]:
        raise OSError("a sandbox")

    if not netlink:
        monkeypatch.setattr(guard, "_ask", refuse)
    with listening_as(0, "127.0.0.1") as ours:
        port = ours.getsockname()[1]
        with (
            listening_as(NOBODY, "127.0.0.2", port) as other,
            listening_as(NOBODY, "::", port),
            socket.create_connection(ours.getsockname()) as connection,
            socket.create_connection(other.getsockname()) as wrong,
        ):
            guard.verify(connection.getsockname(), connection.getpeername())
            with pytest.raises(PermissionError):
                guard.verify(wrong.getsockname(), wrong.getpeername())


SECOND_ADDRESS = """
import socket
from flagscale_deploy.gate import guard
from tests.component.gate.test_guard import NOBODY, listening_as
with listening_as(NOBODY, "10.9.0.2") as listener, socket.create_connection(listener.getsockname()) as connection:
    ends = connection.getsockname(), connection.getpeername()
    assert ends[0][0] == "10.9.0.1", ends
    guard.verify(*ends)
"""


@needs_root
@pytest.mark.parametrize("nonlocal_bind", [0, 1])
def test_the_second_address_of_an_interface_is_of_this_host_too(nonlocal_bind: int) -> None:
    """The kernel gives connections to it the first one as their source."""
    addresses = "".join(f"ip address add 10.9.0.{number}/24 dev lo\n" for number in (1, 2))
    setting = f"echo {nonlocal_bind} > /proc/sys/net/ipv4/ip_nonlocal_bind\n"
    script = f'set -e\nip link set lo up\n{addresses}{setting}exec "$0" -c "$1"'
    command = ["unshare", "--net", "sh", "-c", script, sys.executable, SECOND_ADDRESS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"is held by another user (uid {NOBODY})" in ended.stderr, ended.stderr


@needs_root
def test_who_has_accepted_counts_where_nobody_listens_any_more() -> None:
    with listening_as(NOBODY, "127.0.0.1") as listener:
        connection = socket.create_connection(listener.getsockname())
        os.seteuid(NOBODY)
        accepted = listener.accept()[0]
        os.seteuid(0)
    with connection, accepted, pytest.raises(PermissionError):
        guard.verify(connection.getsockname(), connection.getpeername())


def test_of_other_hosts_nothing_is_known_and_a_closed_connection_is_none() -> None:
    guard.verify(("192.0.2.1", 1), ("192.0.2.2", 2))
    with pytest.raises(ConnectionResetError):
        guard.verify(("127.0.0.1", 1), None)


@needs_root
@pytest.mark.parametrize("accepts", [True, False])
def test_a_stranger_on_a_servers_port_gets_nothing(tmp_path: Path, accepts: bool) -> None:
    with StandIn() as server, Gate(tmp_path, {MODEL: [server.url]}) as gate:
        assert ask(gate, body={"model": MODEL}).status == 200
        server.leave()
        with (
            listening_as(NOBODY, "127.0.0.1", server.port) as listener,
            stranger(listener, accepts=accepts) as received,
        ):
            assert ask(gate, body={"model": MODEL}).status == 503
            assert ask(gate, "/health", headers={}).status == 503
            assert received() == b""
            wait_until(lambda: f"is held by another user (uid {NOBODY})" in gate.log.read_text())
        server.listen()
        wait_until(lambda: ask(gate, body={"model": MODEL}).status == 200)
