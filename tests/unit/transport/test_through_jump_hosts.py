"""Connections through jump hosts, and starts that are refused, with real handshakes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import MSG_KEXINIT

from flagscale_deploy.errors import HostError, InterruptedByUser, TcpError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport import keepalive, login, ssh_transport
from flagscale_deploy.transport.base import Running, run
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.ssh import SshConnection
from flagscale_deploy.transport.through_jump_hosts import JUMP_HOSTS
from tests.unit.transport.loopback import Relay, Server, load_key, new_key


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], Server]]:
    """Return a function that starts a server, which lets `operator` in with ~/key and is known."""
    text = new_key()
    (home / "key").write_text(text)
    (home / "key").chmod(0o600)
    running: list[Server] = []

    def one() -> Server:
        server = Server(load_key(text)).__enter__()
        running.append(server)
        know(server)
        return server

    yield one
    for server in running:
        server.__exit__(None, None, None)
    assert JUMP_HOSTS._groups == {}


def know(server: Server, port: int = 0) -> None:
    with open(os.path.expanduser("~/.ssh/known_hosts"), "a", encoding="utf-8") as file:
        file.write(server.line(port) + "\n")


def host_at(port: int, name: str = "gpu01", jump: int = 0) -> Host:
    proxy_jump = f"operator@127.0.0.1:{jump}" if jump else None
    return Host(name, "127.0.0.1", port=port, user="operator", identity_file="~/key", proxy_jump=proxy_jump)


def to(port: int, jump: int = 0, seconds: float = 10) -> SshConnection:
    return SshConnection(host_at(port, jump=jump), connect_timeout=seconds)


def wait_for_output(command: Running) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        command.read(0.1)


@pytest.mark.parametrize("most", [1, 2, 1000])
def test_several_commands_at_once_work_whatever_the_servers_allow(start: Callable[[], Server], most: int) -> None:
    jump, target = start(), start()
    jump.most_channels = target.most_channels = most
    hosts = [replace(host_at(target.port, jump=jump.port), name=f"gpu{number:02}") for number in range(6)]
    with Fleet(hosts) as fleet:
        tasks = {
            f"{name}-{number}": lambda name=name: run(fleet.connection(name), "cat", stdin=b"x" * 100_000, timeout=30)
            for name in fleet.hosts
            for number in range(3)
        }
        outcomes = fleet.gather(tasks, together=True)
    assert [outcome for outcome in outcomes.values() if isinstance(outcome, HostError)] == []
    assert {len(outcome.stdout) for outcome in outcomes.values() if not isinstance(outcome, HostError)} == {100_000}
    if most == 1000:
        assert len(jump.transports) == 1


def test_two_jump_hosts_are_shared_one_through_the_other(start: Callable[[], Server]) -> None:
    first, second, target = start(), start(), start()
    jumps = f"operator@127.0.0.1:{first.port},operator@127.0.0.1:{second.port}"
    hosts = [replace(host_at(target.port), name=f"gpu{number:02}", proxy_jump=jumps) for number in range(4)]
    with Fleet(hosts) as fleet:
        outcomes = fleet.map(lambda host: run(fleet.connection(host.name), "echo here", timeout=30).stdout)
        assert set(outcomes.values()) == {b"here\n"}
        assert [len(server.transports) for server in (first, second, target)] == [1, 1, 4]
    assert [transport for server in (first, second) for transport in server.transports if ends_late(transport)] == []


def ends_late(transport: threading.Thread) -> bool:
    transport.join(5)
    return transport.is_alive()


def test_a_jump_host_that_is_lost_is_named_and_connected_to_again(start: Callable[[], Server]) -> None:
    jump, target = start(), start()
    with Fleet([host_at(target.port, name, jump.port) for name in ("gpu01", "gpu02")]) as fleet:
        commands = {name: fleet.connection(name).start("sleep 30") for name in fleet.hosts}
        jump.transports[0].close()
        for name, command in commands.items():
            while command.read(5) is not None:
                pass
            with pytest.raises(UnreachableError) as raised:
                command.exit_code(5)
            assert str(raised.value).startswith(
                f"{name}: jump host 127.0.0.1: the SSH connection was lost\n    → check the jump host"
            )
        for name in fleet.hosts:
            assert run(fleet.fresh_connection(name), "echo here", timeout=30).stdout == b"here\n"
    assert len(jump.transports) == 2


def test_a_host_that_is_lost_behind_a_jump_host_is_named_itself(start: Callable[[], Server]) -> None:
    jump, target = start(), start()
    with Fleet([host_at(target.port, jump=jump.port)]) as fleet:
        command = fleet.connection("gpu01").start("sleep 30")
        target.transports[0].close()
        while command.read(5) is not None:
            pass
        with pytest.raises(UnreachableError, match="gpu01: the SSH connection was lost"):
            command.exit_code(5)


def test_a_jump_host_that_answers_no_more_is_named(
    start: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepalive, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(keepalive, "SILENCE_SECONDS", 0.5)
    jump, target = start(), start()
    with Relay(jump.port) as relay:
        know(jump, relay.port)
        connection = to(target.port, relay.port)
        command = connection.start("sleep 30")
        relay.paused.set()
        with pytest.raises(UnreachableError, match=r"jump host 127\.0\.0\.1: its SSH server has not answered for "):
            wait_for_output(command)
        relay.paused.clear()
        connection.close()


def test_a_jump_host_that_is_not_there_is_named_by_every_host_behind_it(start: Callable[[], Server]) -> None:
    target, gone = start(), start()
    gone.__exit__(None, None, None)
    names = [f"gpu{number:02}" for number in range(8)]
    with Fleet([host_at(target.port, name, gone.port) for name in names]) as fleet:
        outcomes = fleet.map(lambda host: fleet.connection(host.name))
    problem = f"jump host 127.0.0.1: cannot connect to 127.0.0.1:{gone.port}"
    for name, outcome in outcomes.items():
        assert isinstance(outcome, TcpError)
        assert str(outcome).startswith(f"{name}: {problem}")
    gone.__enter__()


def test_a_host_that_the_jump_host_cannot_reach_is_told(start: Callable[[], Server]) -> None:
    jump, gone = start(), start()
    gone.__exit__(None, None, None)
    with pytest.raises(TcpError, match=rf"jump host 127\.0\.0\.1 cannot connect to 127\.0\.0\.1:{gone.port}"):
        to(gone.port, jump.port).open()
    gone.__enter__()


@pytest.mark.parametrize("behind", [False, True])
def test_a_refused_start_is_tried_again(start: Callable[[], Server], behind: bool) -> None:
    jump, target = start(), start()
    with Relay(target.port, refusals=2) as relay:
        know(target, relay.port)
        connection = to(relay.port, jump.port if behind else 0)
        assert run(connection, "echo here", timeout=20).stdout == b"here\n"
        connection.close()
        assert relay.connections == 3
    assert len(jump.transports) == int(behind)


def test_a_server_that_refuses_every_start_is_told_with_the_tries(start: Callable[[], Server]) -> None:
    target = start()
    with Relay(target.port, refusals=1000) as relay:
        began = time.monotonic()
        with pytest.raises(UnreachableError) as raised:
            to(relay.port, seconds=1).open()
        assert time.monotonic() - began < 30
    assert "the server closed the connection before the login (" in raised.value.problem
    assert "MaxStartups" in raised.value.remedy


def test_who_waits_for_the_next_try_can_be_interrupted(
    start: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "FIRST_PAUSE", 60.0)
    target = start()
    with Relay(target.port, refusals=1000) as relay, ThreadPoolExecutor(1) as threads:
        connection = to(relay.port)
        opening = threads.submit(connection.open)
        while not relay.connections:
            threading.Event().wait(0.01)
        connection.cancelled.set()
        assert isinstance(opening.exception(10), InterruptedByUser)


def test_a_fleet_interrupts_what_it_opens(start: Callable[[], Server]) -> None:
    with Fleet([host_at(1)]) as fleet:
        connection = fleet._connections["gpu01"]
        assert isinstance(connection, SshConnection)
        assert connection.cancelled is fleet.cancelled


def test_a_jump_host_that_ends_no_key_exchange_costs_no_result(
    start: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_transport, "REKEY_SECONDS", 1.0)
    jump, target, over = start(), start(), threading.Event()
    hosts = [replace(host_at(target.port, jump=jump.port), name=f"gpu{number:02}") for number in range(12)]
    with Fleet([*hosts, replace(host_at(target.port), name="direct")]) as fleet:
        outcomes = fleet.map(lambda host: run(fleet.connection(host.name), "true", timeout=30))
        for transport in filter(paramiko.Transport.is_active, jump.transports):
            handlers = transport._handler_table  # type: ignore[attr-defined]
            monkeypatch.setitem(handlers, MSG_KEXINIT, lambda _message: over.wait(60))
            transport._send_kex_init()  # type: ignore[attr-defined]
        clears = [sessions.login._jump_channel.login.transport.clear_to_send for sessions in _logins(fleet)]
        eventually(lambda: not any(clear.is_set() for clear in clears))
        began = time.monotonic()
    took = time.monotonic() - began
    over.set()
    assert took < 6  # and not a second for each host
    assert not any(isinstance(outcome, HostError) for outcome in outcomes.values())


def _logins(fleet: Fleet) -> list[Any]:
    connections: list[Any] = [fleet.connection(name) for name in fleet.hosts if name != "direct"]
    return [sessions for connection in connections for sessions in connection._logins]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
