from __future__ import annotations

import inspect
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType
from paramiko import ssh_exception

from flagscale_deploy.errors import (
    AuthenticationError,
    ConnectError,
    HostKeyError,
    InterruptedByUser,
    RemoteError,
    TcpError,
    UnreachableError,
)
from flagscale_deploy.inventory.model import Host, HostKeyChecking
from flagscale_deploy.remote.messages.status import INSPECT, InspectArguments
from flagscale_deploy.transport import hostkeys, identities, remote_program, ssh, ssh_transport
from flagscale_deploy.transport.base import run
from flagscale_deploy.transport.remote_program import call
from flagscale_deploy.transport.ssh import SshConnection
from flagscale_deploy.transport.ssh_errors import connect_error, errors_of
from flagscale_deploy.transport.ssh_settings import Settings
from flagscale_deploy.transport.ssh_transport import Transport
from tests.unit.transport.loopback import Server, load_key, new_key

HOST = Host("gpu01", "10.0.0.1", port=2222, user="ubuntu")
KEY, OTHER = load_key(new_key()), load_key(new_key())

TABLE: dict[type[Exception], tuple[Exception, type[ConnectError], str]] = {
    paramiko.SSHException: (paramiko.SSHException("Error reading SSH protocol banner"), UnreachableError, "banner"),
    paramiko.AuthenticationException: (
        paramiko.AuthenticationException("Authentication failed."), AuthenticationError, "as ubuntu: "),
    paramiko.PasswordRequiredException: (
        paramiko.PasswordRequiredException("Private key file is encrypted"), AuthenticationError, "passphrase"),
    paramiko.BadAuthenticationType: (
        paramiko.BadAuthenticationType("Bad authentication type", ["password"]), AuthenticationError, "cannot log in"),
    ssh_exception.PartialAuthentication: (
        ssh_exception.PartialAuthentication(["publickey"]), AuthenticationError, "cannot log in"),
    ssh_exception.UnableToAuthenticate: (
        ssh_exception.UnableToAuthenticate("no more"), AuthenticationError, "cannot log in"),
    paramiko.ChannelException: (
        paramiko.ChannelException(1, "Administratively prohibited"), UnreachableError, "Administratively prohibited"),
    paramiko.BadHostKeyException: (
        paramiko.BadHostKeyException("[10.0.0.1]:2222", KEY, OTHER), HostKeyError, "its host key changed"),
    ssh_exception.IncompatiblePeer: (
        ssh_exception.IncompatiblePeer("no acceptable ciphers"), UnreachableError, "no acceptable ciphers"),
    paramiko.ProxyCommandFailure: (
        paramiko.ProxyCommandFailure("ssh -W", "255"), UnreachableError, "255"),
    ssh_exception.NoValidConnectionsError: (
        ssh_exception.NoValidConnectionsError({("10.0.0.1", 2222): ConnectionRefusedError(111, "refused")}),
        TcpError, "cannot connect to 10.0.0.1:2222"),
    ssh_exception.CouldNotCanonicalize: (
        ssh_exception.CouldNotCanonicalize("gpu01"), UnreachableError, "gpu01"),
    ssh_exception.ConfigParseError: (
        ssh_exception.ConfigParseError("Unparsable line Foo"), UnreachableError, "Unparsable line Foo"),
    ssh_exception.MessageOrderError: (
        ssh_exception.MessageOrderError("order"), UnreachableError, "order"),
    socket.gaierror: (socket.gaierror(-2, "Name or service not known"), TcpError, "cannot be resolved"),
    TimeoutError: (TimeoutError("timed out"), TcpError, "no answer from 10.0.0.1:2222 in time"),
    ConnectionRefusedError: (ConnectionRefusedError(111, "Connection refused"), TcpError, "Connection refused"),
    ConnectionResetError: (ConnectionResetError(104, "Connection reset by peer"), TcpError, "reset"),
    BrokenPipeError: (BrokenPipeError(32, "Broken pipe"), TcpError, "Broken pipe"),
    PermissionError: (PermissionError(13, "Permission denied", "/k"), TcpError, "Permission denied"),
    FileNotFoundError: (FileNotFoundError(2, "No such file", "/k"), TcpError, "No such file"),
    OSError: (OSError(113, "No route to host"), TcpError, "No route to host"),
    EOFError: (EOFError(), UnreachableError, "EOFError"),
    InvalidTag: (InvalidTag(), UnreachableError, "InvalidTag"),
}  # fmt: skip


def foreign() -> set[type[Exception]]:
    """Everything that Paramiko defines to raise."""
    return {
        kind
        for _, kind in inspect.getmembers(ssh_exception, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == ssh_exception.__name__
    }


def test_the_table_has_every_exception_that_paramiko_has() -> None:
    assert foreign() <= set(TABLE)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_every_foreign_error_becomes_one_of_ours(kind: type[Exception]) -> None:
    error, expected, text = TABLE[kind]
    ours = connect_error(HOST, error)
    assert type(ours) is expected
    assert ours.host == "gpu01"
    assert ours.exit_code == 3
    assert text in ours.problem
    assert ours.remedy


def test_a_connection_that_fails_beneath_ssh_is_told_from_an_ssh_that_fails() -> None:
    refused_by_a_jump_host = paramiko.ChannelException(2, "Connect failed")
    assert isinstance(connect_error(HOST, refused_by_a_jump_host), TcpError)
    kinds = {}
    for beneath in (ConnectionResetError(104, "reset"), TimeoutError(), EOFError()):
        try:
            try:
                raise beneath
            except (OSError, EOFError):
                raise paramiko.SSHException("Error reading SSH protocol banner")  # noqa: B904 (as Paramiko does)
        except paramiko.SSHException as error:
            kinds[type(beneath)] = type(connect_error(HOST, error))
    assert kinds == {ConnectionResetError: TcpError, TimeoutError: UnreachableError, EOFError: UnreachableError}


def test_every_one_of_them_is_caught_where_we_connect() -> None:
    for error, expected, _ in TABLE.values():
        with pytest.raises(expected) as raised:
            with errors_of(HOST):
                raise error
        assert raised.value.__cause__ is error


def test_our_own_errors_pass() -> None:
    ours = HostKeyError("gpu01", "unknown")
    assert connect_error(HOST, ours) is ours


def test_no_authentication_methods_left_is_a_refused_login() -> None:
    assert isinstance(
        connect_error(HOST, paramiko.SSHException("No authentication methods available")), AuthenticationError
    )


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """Start a server that lets `operator` in with ~/key."""
    text = new_key()
    (home / "key").write_text(text)
    (home / "key").chmod(0o600)
    with Server(load_key(text)) as running:
        yield running


def to(server: Server, checking: HostKeyChecking | None = None, **settings: str) -> SshConnection:
    host = Host("gpu01", "127.0.0.1", port=server.port, user="operator", host_key_checking=checking,
                identity_file=os.path.expanduser("~/key"))  # fmt: skip
    return SshConnection(replace(host, **settings), connect_timeout=10)  # type: ignore[arg-type]


def known(home: Path, *lines: str, end: str = "\n") -> Path:
    path = home / ".ssh" / "known_hosts"
    path.write_text("\n".join(lines) + end)
    return path


def test_a_known_host_is_let_us_in_and_runs_commands_on_one_connection(home: Path, server: Server) -> None:
    known(home, server.line())
    connection = to(server)
    try:
        for at in range(3):
            ended = run(connection, f"cat; echo err{at} >&2; exit {at}", stdin=b"in\0put", timeout=20)
            assert (ended.exit_code, ended.stdout, ended.stderr) == (at, b"in\0put", f"err{at}\n".encode())
    finally:
        connection.close()
    assert len(server.transports) == 1
    assert server.sessions == 3


def test_what_is_closed_leaves_no_thread(home: Path, server: Server) -> None:
    known(home, server.line())
    for _ in range(10):
        connection = to(server)
        run(connection, "true", timeout=20)
        connection.close()
        transports = [thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)]
        ours = [transport for transport in transports if not transport.server_mode]
        assert ours == []


def test_programs_go_over_ssh(home: Path, server: Server) -> None:
    known(home, server.line())
    connection = to(server, python=sys.executable)
    args: InspectArguments = {"deployment": "none", "host": "gpu01", "ask": False}
    try:
        assert call(connection, INSPECT, args, timeout=30)["record"] is None
    finally:
        connection.close()


def test_an_unknown_key_is_refused_by_default_with_the_way_to_accept_it(home: Path, server: Server) -> None:
    with pytest.raises(HostKeyError) as raised:
        to(server).open()
    error = raised.value
    assert "its host key is not known" in error.problem
    assert server.host_key.fingerprint in error.problem
    assert f"echo '{server.line()}' >> {home}/.ssh/known_hosts" in error.remedy
    assert "host_key_checking: accept-new" in error.remedy
    assert not (home / ".ssh" / "known_hosts").exists()


def test_accept_new_remembers_and_then_verifies(home: Path, server: Server) -> None:
    path = known(home, "other ssh-ed25519 AAAA", end="")
    for _ in range(2):
        connection = to(server, "accept-new")
        connection.open()
        connection.close()
    assert path.read_text().splitlines() == ["other ssh-ed25519 AAAA", server.line()]
    server.host_key = OTHER
    with pytest.raises(HostKeyError, match="its host key changed"):
        to(server, "accept-new").open()


@pytest.mark.parametrize("before", ["other ssh-ed25519 AAAA", None], ids=["a file", "no file yet"])
def test_of_first_logins_at_the_same_time_only_one_key_is_accepted(home: Path, before: str | None) -> None:
    path = home / ".ssh" / "known_hosts"
    if before is not None:
        known(home, before, end="")
    host = replace(HOST, known_hosts=str(path), host_key_checking="accept-new")
    logins = [hostkeys.HostKeys(host, Settings("gpu01", "127.0.0.1", "operator", 2222)) for _ in range(8)]
    outcomes: list[str] = []
    together = threading.Barrier(len(logins))

    def log_in(host_keys: hostkeys.HostKeys, key: paramiko.PKey) -> None:
        together.wait(10)
        try:
            host_keys.verify(key)
            outcomes.append(key.get_base64())
        except HostKeyError as error:
            outcomes.append(error.problem.partition(":")[0])

    keys = [KEY, OTHER] * 4
    threads = [threading.Thread(target=log_in, args=login) for login in zip(logins, keys, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    (added,) = [line.split()[2] for line in path.read_text().splitlines() if line.startswith("[127.0.0.1]:2222 ")]
    assert sorted(outcomes) == sorted([added] * 4 + ["its host key changed"] * 4)


def test_accept_new_makes_the_file_it_needs(home: Path, server: Server) -> None:
    connection = to(server, "accept-new", known_hosts=str(home / "deep" / "known"))
    connection.open()
    connection.close()
    assert (home / "deep" / "known").read_text() == server.line() + "\n"


def test_a_new_key_that_cannot_be_remembered_is_refused(home: Path, server: Server) -> None:
    (home / "file").write_text("")
    with pytest.raises(HostKeyError, match=r"cannot be remembered: .*file/known: File exists"):
        to(server, "accept-new", known_hosts=str(home / "file" / "known")).open()


@pytest.mark.parametrize("checking", [None, "strict", "accept-new"])
def test_a_changed_key_is_refused(home: Path, server: Server, checking: HostKeyChecking | None) -> None:
    path = known(home, server.line())
    expected = server.host_key
    server.host_key = OTHER
    with pytest.raises(HostKeyError) as raised:
        to(server, checking).open()
    assert raised.value.problem.startswith(f"its host key changed: [127.0.0.1]:{server.port} shows ssh-ed25519 ")
    assert f"{path}:1 has ssh-ed25519 " in raised.value.problem
    assert OTHER.fingerprint in raised.value.problem
    assert expected.fingerprint in raised.value.problem
    assert f"ssh-keygen -f {path} -R '[127.0.0.1]:{server.port}'" in raised.value.remedy


@pytest.mark.parametrize("checking", [None, "accept-new"])
@pytest.mark.parametrize("also_trusted", [False, True])
def test_a_revoked_key_is_refused(
    home: Path, server: Server, checking: HostKeyChecking | None, also_trusted: bool
) -> None:
    path = known(home, *([server.line()] if also_trusted else []), f"@revoked * {server.line().partition(' ')[2]}")
    before = path.read_text()
    with pytest.raises(HostKeyError) as raised:
        to(server, checking).open()
    assert raised.value.problem.startswith(f"its host key is revoked: [127.0.0.1]:{server.port} shows ssh-ed25519 ")
    assert raised.value.problem.endswith(f"see {path}:{2 if also_trusted else 1}")
    assert path.read_text() == before


def test_another_names_revoked_key_says_nothing_of_this_host(home: Path, server: Server) -> None:
    known(home, server.line(), f"@revoked elsewhere {server.line().partition(' ')[2]}")
    connection = to(server)
    connection.open()
    connection.close()


def test_off_asks_nothing(home: Path, server: Server) -> None:
    before = known(home, server.line()).read_text()
    server.host_key = OTHER
    connection = to(server, "off")
    connection.open()
    connection.close()
    assert (home / ".ssh" / "known_hosts").read_text() == before


def test_ssh_configs_strict_host_key_checking_serves_where_the_inventory_is_silent(home: Path, server: Server) -> None:
    (home / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking accept-new\n  UserKnownHostsFile ~/mine\n")
    connection = to(server)
    connection.open()
    connection.close()
    assert (home / "mine").read_text() == server.line() + "\n"


def test_an_alias_of_ssh_config_is_understood(home: Path, server: Server) -> None:
    known(home, server.line())
    (home / ".ssh" / "config").write_text(
        f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n  User operator\n  IdentityFile ~/key\n"
    )
    connection = SshConnection(Host("gpu01", "box"), connect_timeout=10)
    try:
        assert run(connection, "echo here", timeout=20).stdout == b"here\n"
    finally:
        connection.close()


def hashed(server: Server) -> str:
    name, _, key = server.line().partition(" ")
    return f"{paramiko.HostKeys.hash_host(name)} {key}"


def renamed(name: str) -> object:
    return lambda server: f"{name.format(port=server.port)} {server.line().split(' ', 1)[1]}"


@pytest.mark.parametrize(
    "line",
    [hashed, renamed("a,[127.0.0.1]:{port},b"), renamed("[127.0.0.?]:*"), renamed("[127.*]:{port}")],
    ids=["hashed", "one of several", "pattern", "pattern of an address"],
)
def test_forms_of_known_hosts(home: Path, server: Server, line: object) -> None:
    assert callable(line)
    known(home, "# a comment", "", "broken", "x ssh-ed25519 not!base64", "|1|no|salt ssh-rsa AAAA", line(server))
    connection = to(server)
    connection.open()
    connection.close()


@pytest.mark.parametrize(
    "name", ["[127.0.0.1]:22", "127.0.0.2", "!*,[127.0.0.1]:{port}", "@cert-authority *", "|1|no|no"]
)
def test_another_names_key_is_not_this_hosts(home: Path, server: Server, name: str) -> None:
    line = renamed(name)
    assert callable(line)
    known(home, line(server))
    with pytest.raises(HostKeyError, match="its host key is not known"):
        to(server).open()


def test_a_broken_line_of_known_hosts_for_this_very_host_counts_for_nothing(home: Path, server: Server) -> None:
    known(home, f"[127.0.0.1]:{server.port} ssh-ed25519 AAA", "\xff\xfe", server.line())
    connection = to(server)
    connection.open()
    connection.close()


def test_a_large_known_hosts_costs_little(home: Path, server: Server) -> None:
    other = load_key(new_key())
    lines = [f"gpu{at}.example.org,10.1.{at // 250}.{at % 250} ssh-ed25519 {other.get_base64()}" for at in range(3000)]
    known(home, *lines, server.line())
    began = time.process_time()
    for _ in range(5):
        hostkeys.HostKeys(
            replace(HOST, known_hosts=str(home / ".ssh/known_hosts")),
            Settings("gpu01", "127.0.0.1", "operator", server.port),
        ).verify(server.host_key)
    assert time.process_time() - began < 10


def test_a_known_hosts_that_cannot_be_read_is_told(home: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    known(home, server.line())
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if Path(path).name == "known_hosts":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HostKeyError, match=r"known hosts file .*known_hosts cannot be read: Permission denied"):
        to(server).open()


def test_a_refused_login_names_user_and_place(home: Path, server: Server) -> None:
    known(home, server.line())
    with pytest.raises(AuthenticationError) as raised:
        to(server, user="stranger").open()
    assert f"cannot log in to 127.0.0.1:{server.port} as stranger: " in raised.value.problem
    assert "ssh-copy-id" in raised.value.remedy


def test_an_identity_file_that_is_not_there_is_named(home: Path, server: Server) -> None:
    known(home, server.line())
    with pytest.raises(AuthenticationError, match=r"/no/such/key is passed over: No such file or directory"):
        to(server, identity_file="/no/such/key").open()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"cannot connect to 127.0.0.1:{port}"):
        SshConnection(Host("gpu01", "127.0.0.1", port=port), connect_timeout=5).open()


def test_who_listens_is_no_ssh_server(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = Host("gpu01", "127.0.0.1", port=silent.getsockname()[1])
        with pytest.raises(UnreachableError):
            SshConnection(host, connect_timeout=0.3).open()


def test_a_connection_that_breaks_is_unreachable_and_not_an_exit_status(home: Path, server: Server) -> None:
    known(home, server.line())
    connection = to(server)
    running = connection.start("sleep 30")
    for transport in server.transports:
        transport.close()
    while running.read(5) is not None:
        pass
    with pytest.raises(UnreachableError, match="the SSH connection was lost"):
        running.exit_code(5)
    connection.close()


def test_a_server_that_starts_no_command_is_told_in_time(home: Path, server: Server) -> None:
    known(home, server.line())
    server.ignores_commands = True
    connection = SshConnection(to(server).host, 0.5)
    with pytest.raises(UnreachableError, match=r"its SSH server has not started a command within 0\.5 s"):
        connection.start("true")
    connection.close()


def test_an_exit_status_that_never_comes_is_waited_for_within_bounds(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_program, "EXIT_SECONDS", 1.0)
    known(home, server.line())
    server.sends_no_status = True
    args: InspectArguments = {"deployment": "qwen", "host": "box", "ask": False}
    connection = to(server)
    with pytest.raises(RemoteError, match="a command did not end within 1 s of its output"):
        call(connection, INSPECT, args, timeout=3600)
    monkeypatch.setattr(remote_program, "EXIT_SECONDS", 3600.0)
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(InterruptedByUser):
        call(connection, INSPECT, args, timeout=3600, cancelled=cancelled)
    assert time.monotonic() - began < 30
    connection.close()


def test_a_packet_that_is_too_large_is_not_read(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def announce() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"SSH-2.0-evil\r\n" + ((1 << 31) + 4).to_bytes(4, "big") + b"x" * 60)
                threading.Event().wait(60)

        threading.Thread(target=announce, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(ConnectError, match="packet of"):
            SshConnection(Host("box", "127.0.0.1", port=listener.getsockname()[1], user="operator"), 20).open()
        assert time.monotonic() - began < 30


def test_what_is_sent_to_a_host_that_reads_ever_so_slowly_is_given_up(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "SEND_SECONDS", 1.0)
    known(home, server.line())
    connection = to(server)
    slow = "import os, time\nfor _ in range(100):\n    os.read(0, 1)\n    time.sleep(0.2)"
    running = connection.start(shlex.join([sys.executable, "-c", slow]))
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        running.send(b"x" * (64 << 20))
    assert time.monotonic() - began < 15
    connection.close()


RELAY = """
import os, socket, sys, threading, time
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def reply():
    while data := server.recv(65536):
        os.write(1, data)
threading.Thread(target=reply, daemon=True).start()
count = 0
while count < 100_000:
    data = os.read(0, 4096)
    count += len(data)
    server.sendall(data)
while os.read(0, int(sys.argv[2])):
    time.sleep(0.1)
"""
"""A way to a host that takes up to 100 kB, then a few bytes now and then."""


@pytest.mark.parametrize("taken", [0, 100])
def test_a_way_to_a_host_that_takes_no_more_is_given_up_by_all_who_write(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(ssh_transport, "WRITE_SECONDS", 1.0)
    known(home, server.line())
    (home / "relay.py").write_text(RELAY.replace("while os.read(0,", "while not int(sys.argv[2]) or os.read(0,"))
    connection = to(server, ssh_options=f"-o 'ProxyCommand={sys.executable} {home}/relay.py %p {taken}'")
    running = connection.start("sleep 60")
    began = time.monotonic()
    with suppress(UnreachableError):
        running.send(b"x" * (4 << 20))
    with pytest.raises(UnreachableError):
        running.exit_code(5)
    running.close_stdin()
    running.close()
    connection.close()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("checking", ["strict", "accept-new"])
def test_a_key_without_its_port_counts_only_where_none_is_known_with_it(
    home: Path, server: Server, checking: HostKeyChecking
) -> None:
    plain = f"127.0.0.1 {server.host_key.get_name()} {server.host_key.get_base64()}"
    known(home, plain)
    connection = to(server, checking)
    connection.open()
    connection.close()
    for other in (OTHER, paramiko.ECDSAKey.generate()):
        known(home, plain, f"[127.0.0.1]:{server.port} {other.get_name()} {other.get_base64()}")
        with pytest.raises(HostKeyError, match="its host key changed"):
            to(server, checking).open()


def test_a_command_that_does_not_end_is_an_error(home: Path, server: Server) -> None:
    known(home, server.line())
    connection = to(server)
    with pytest.raises(RemoteError, match=r"no answer within 0\.3 s"):
        run(connection, "sleep 2", timeout=0.3)
    connection.close()


@pytest.mark.parametrize(
    ("inventory", "config", "expected"),
    [
        (None, "ask", "strict"),
        (None, "no", "off"),
        (None, "Accept-New", "accept-new"),
        (None, "nonsense", "strict"),
        ("strict", "no", "strict"),
        ("off", "yes", "off"),
    ],
)
def test_who_decides_about_host_keys(inventory: HostKeyChecking | None, config: str, expected: HostKeyChecking) -> None:
    assert hostkeys.checking(replace(HOST, host_key_checking=inventory), config) == expected


def test_ciphers_that_need_no_separate_mac_come_first_and_none_is_missing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        plain, made = paramiko.Transport(ours), Transport(theirs)
        first = made.get_security_options().ciphers
        assert "-gcm@" in first[0]
        assert sorted(first) == sorted(plain.get_security_options().ciphers)
        assert [cipher for cipher in first if "-gcm@" not in cipher] == [
            cipher for cipher in plain.get_security_options().ciphers if "-gcm@" not in cipher
        ]


Key = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NEW_KEYS: dict[str, Callable[[], Key]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


def write_key(path: Path, key: Key, passphrase: bytes = b"") -> Path:
    """Write a private key as `ssh-keygen` does."""
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, locked))
    path.chmod(0o600)
    return path


def write_certificate(path: Path, key: Key) -> None:
    """Write a user certificate for the key, signed by a new authority, as `ssh-keygen -s` does."""
    builder = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .type(SSHCertificateType.USER)
        .key_id(b"x")
        .valid_principals([b"root"])
        .valid_after(0)
        .valid_before(1 << 62)
    )
    path.write_bytes(builder.sign(Ed25519PrivateKey.generate()).public_bytes())


@pytest.mark.parametrize("kind", sorted(NEW_KEYS))
def test_an_identity_file_is_read_once_and_its_certificate_each_time(tmp_path: Path, kind: str) -> None:
    private = NEW_KEYS[kind]()
    key = write_key(tmp_path / "key", private)
    certificate = Path(f"{key}-cert.pub")
    write_certificate(certificate, private)
    settings = Settings("gpu01", "gpu01", "root", identity_files=(str(key),))
    first, again = (identities.identities(settings).offers for _ in range(2))
    assert [offer.name for offer in first] == [str(certificate), str(key)]
    assert again[1].key is first[1].key
    assert first[1].key.public_blob is None
    shown = first[0].key.public_blob
    write_certificate(certificate, private)
    renewed = identities.identities(settings).offers[0].key.public_blob
    assert shown is not None
    assert renewed is not None
    assert shown.key_blob != renewed.key_blob


def test_identity_files_that_cannot_be_used_are_passed_over_with_the_reason(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("no key")
    locked = write_key(tmp_path / "locked", Ed25519PrivateKey.generate(), b"a passphrase")
    for path in (garbage, locked):
        path.chmod(0o600)
    opened = write_key(tmp_path / "opened", Ed25519PrivateKey.generate())
    opened.chmod(0o644)
    paths = tuple(map(str, (garbage, tmp_path / "nothing", locked, opened)))
    result = identities.identities(Settings("gpu01", "gpu01", "root", identity_files=paths))
    assert result.offers == []
    assert [path for path, _ in result.passed_over] == list(paths)
    reasons = [problem for _, problem in result.passed_over]
    assert "cannot be read as a private key" in reasons[0]
    assert reasons[1:] == [
        "No such file or directory",
        "it has a passphrase, and the agent does not hold it",
        "its mode 0644 lets others read it: chmod 600",
    ]
