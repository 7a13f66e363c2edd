"""Reach hosts by SSH: Fabric reads `~/.ssh/config` and opens connections, Paramiko carries the commands."""

from __future__ import annotations

import functools
import logging
import os
import select
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, cast

import fabric
import paramiko
from cryptography.exceptions import InvalidTag

from flagscale_deploy.errors import HostKeyError, RemoteError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport import hostkeys
from flagscale_deploy.transport.base import Source
from flagscale_deploy.transport.keepalive import Keepalive
from flagscale_deploy.transport.ssh_errors import connect_error
from flagscale_deploy.transport.ssh_transport import Transport, notice_silence, wake

CHUNK = 1 << 16
LOST_SECONDS = 0.5
SEND_SECONDS = 120.0
"""How long a program may leave unread what is sent to it."""


logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class SshConnection:
    """One SSH connection, opened on first use; each command is a channel of it."""

    def __init__(self, host: Host, connect_timeout: float) -> None:
        self.host = host
        self._timeout = connect_timeout
        self._fabric: fabric.Connection | None = None
        self._keepalive: Keepalive | None = None

    def open(self) -> None:
        """Connect and log in, if that has not been done."""
        if self._fabric is not None and self._fabric.is_connected:
            return
        self.close()
        with _errors_of(self.host):
            self._fabric = _fabric_connection(self.host, self._timeout)
            try:
                self._fabric.open()
            except paramiko.BadHostKeyException as error:
                raise _changed_key(self.host, self._fabric, error) from error
        notice_silence(self._fabric.transport)
        self._keepalive = Keepalive(self._fabric.transport)

    def start(self, command: str) -> SshRunning:
        """Start a command on a channel of its own."""
        self.open()
        assert self._fabric is not None
        assert self._keepalive is not None
        with _errors_of(self.host):
            channel = self._fabric.transport.open_session(timeout=self._timeout)
            with _answered(self.host.name, channel, self._timeout):
                channel.exec_command(command)
        return SshRunning(self.host.name, channel, self._keepalive)

    def close(self) -> None:
        """Close it, with the hops before it."""
        for hop in _hops(self._fabric) if self._fabric is not None else ():
            transport = hop.transport
            wake(transport)
            hop.close()
            hop.client.close()  # Fabric leaves a login that was refused, or a lost connection, open
            if transport is not None and transport.is_alive():
                transport.join(LOST_SECONDS)  # Paramiko waits for no thread that has noticed the end itself


class SshRunning:
    """A command on a channel of its own."""

    def __init__(self, host: str, channel: paramiko.Channel, keepalive: Keepalive) -> None:
        self._host, self._channel, self._keepalive = host, channel, keepalive
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)

    def send(self, data: bytes) -> None:
        """Write to its standard input."""
        deadline, sent = Deadline(SEND_SECONDS), 0
        try:
            while sent < len(data):  # not sendall: with a host that reads a byte now and then it would take days
                self._channel.settimeout(max(0.01, deadline.remaining))
                sent += self._channel.send(data[sent : sent + CHUNK])
        except (OSError, EOFError):
            if not self._channel.exit_status_ready():  # else it ended early: its exit status and stderr say why
                raise _lost(self._host) from None

    def close_stdin(self) -> None:
        """End its standard input."""
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError):
            return  # the other side closed first

    def read(self, timeout: float) -> tuple[Source, bytes] | None:
        """Return the next output; see `Running`."""
        channel = self._channel
        for attempt in (0, 1):
            if channel.recv_ready():
                self._keepalive.heard()
                return "stdout", channel.recv(CHUNK)
            if channel.recv_stderr_ready():
                self._keepalive.heard()
                return "stderr", channel.recv_stderr(CHUNK)
            if channel.eof_received or channel.closed:
                return self._rest()
            if attempt == 0:
                self._poll.poll(timeout * 1000)
        if silent := self._keepalive.silent_for():
            self._channel.get_transport().close()
            raise UnreachableError(
                self._host, f"its SSH server has not answered for {silent:.0f} s", "look at the host's load and disks"
            )
        return "stdout", b""

    def exit_code(self, timeout: float) -> int:
        """Wait for its exit status and return it."""
        if not self._channel.status_event.wait(timeout):
            raise RemoteError(self._host, f"a command did not end within {timeout:g} s of its output")
        code = self._channel.recv_exit_status()
        if code < 0:  # lost, or killed by a signal; a transport that is lost ends its channels before itself
            self._channel.get_transport().join(LOST_SECONDS)
        if code < 0 and not self._channel.get_transport().is_active():
            raise _lost(self._host)
        return code

    def close(self) -> None:
        """Close its channel."""
        self._channel.close()

    def _rest(self) -> tuple[Source, bytes] | None:
        """Return what arrived before the end, which has been announced."""
        if self._channel.recv_ready():
            return "stdout", self._channel.recv(CHUNK)
        if self._channel.recv_stderr_ready():
            return "stderr", self._channel.recv_stderr(CHUNK)
        return None


@contextmanager
def _answered(host: str, channel: paramiko.Channel, seconds: float) -> Iterator[None]:
    """Close the channel if the block takes longer: Paramiko waits without end for the answer to a request.

    Raises UnreachableError then.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        channel.close()

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except paramiko.SSHException as error:
        if late.is_set():
            problem = f"its SSH server has not started a command within {seconds:g} s"
            raise UnreachableError(host, problem, "look at the host's load and disks") from error
        raise
    finally:
        timer.cancel()


class _Connection(fabric.Connection):  # type: ignore[misc]  # Fabric is untyped
    """A connection of Fabric's that shares nothing with others.

    Fabric 3.2 keeps every attribute that its class does not declare in the configuration, which all connections share,
    and builds that anew each time: other threads found it half empty (seen with 300 hosts).
    """

    inline_ssh_env: bool | None = None


def _fabric_connection(host: Host, timeout: float) -> fabric.Connection:
    config = _fabric_config()
    settings = {
        "banner_timeout": timeout, "auth_timeout": timeout, "channel_timeout": timeout, "transport_factory": Transport,
    }  # fmt: skip
    keys = _keys(host.identity_file) if host.identity_file else {}
    gateway: fabric.Connection | Literal[False] | None = False if host.proxy_jump == "none" else None
    for jump in (host.proxy_jump or "").split(","):
        if jump and jump != "none":  # as OpenSSH has it, `none` overrides the ProxyJump of ~/.ssh/config
            gateway = _Connection(
                jump, gateway=gateway or None, config=config, connect_timeout=timeout, connect_kwargs=settings | keys
            )
    connection = _Connection(
        host.address,
        user=host.user,
        port=host.port,
        gateway=gateway,
        config=config,
        connect_timeout=timeout,
        connect_kwargs=settings | keys,
    )
    for hop in _hops(connection):  # Fabric's own policy accepts any key, also a jump host's
        known_as = hostkeys.known_name(hop.host, hop.port)
        of_hop = cast("Mapping[str, object]", hop.ssh_config)
        hostkeys.install(hop.client, host, of_hop, known_as, jump=hop is not connection)
    return connection


def _keys(path: str) -> dict[str, Any]:
    """Return how Paramiko is given an identity file: by its key, which it would else read three times for each host.

    What needs a passphrase, or is no key, is given by its name.
    """
    try:
        return {"pkey": _key(path, _changed(path), _changed(f"{path}-cert.pub"))}
    except Exception:  # noqa: BLE001 (whatever it is)
        return {"key_filename": path}


@functools.cache
def _key(path: str, *_changed: int | None) -> paramiko.PKey:
    """Read a key anew where it, or its certificate, has changed: those may be valid for minutes."""
    return paramiko.PKey.from_path(path)


def _changed(path: str) -> int | None:
    with suppress(OSError):
        return os.stat(path).st_ctime_ns
    return None


def _hops(connection: fabric.Connection) -> Iterator[fabric.Connection]:
    """Yield a connection and those it goes through, the nearest to the host first."""
    hop: fabric.Connection | str | None = connection
    while isinstance(hop, fabric.Connection):
        yield hop
        hop = hop.gateway


def _changed_key(host: Host, connection: fabric.Connection, error: paramiko.BadHostKeyException) -> HostKeyError:
    """Return the error for a changed key: Paramiko's names the machine but not its port, which known_hosts has."""
    hop = next((hop for hop in _hops(connection) if hop.host == error.hostname), connection)
    files = hostkeys.known_hosts_files(host, cast("Mapping[str, object]", hop.ssh_config))
    return hostkeys.changed(host, error, files, hostkeys.known_name(hop.host, hop.port))


@functools.cache
def _fabric_config() -> fabric.Config:
    """Read `~/.ssh/config` and the system's, once; Fabric's own configuration files are not for us.

    What Fabric asks it for each connection are plain attributes here: Invoke looks for them in all of its levels.
    """
    config = fabric.Config(lazy=True)
    config.load_ssh_config()
    for name in ("user", "port", "gateway", "forward_agent", "inline_ssh_env", "connect_kwargs"):
        object.__setattr__(config, name, getattr(config, name))
    return config


def _lost(host: str) -> UnreachableError:
    return UnreachableError(host, "the SSH connection was lost", "check the host and the network, then run `status`")


@contextmanager
def _errors_of(host: Host) -> Iterator[None]:
    """Raise everything that Paramiko, Fabric and sockets raise while connecting as a ConnectError."""
    try:
        yield
    except (paramiko.SSHException, OSError, EOFError, InvalidTag) as error:
        raise connect_error(host, error) from error
