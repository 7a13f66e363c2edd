"""Reach hosts by SSH: Paramiko carries the commands; where they go is what the operator's own ssh would do."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import paramiko

from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.base import Interruptible, Source
from flagscale_deploy.transport.login import LOST_SECONDS, Login
from flagscale_deploy.transport.route import destination_of, find_route
from flagscale_deploy.transport.ssh_config import Resolver, this_resolver
from flagscale_deploy.transport.ssh_errors import FAILED, errors_of
from flagscale_deploy.transport.ssh_settings import Settings
from flagscale_deploy.transport.ssh_transport import LIMITS
from flagscale_deploy.transport.through_jump_hosts import JumpRoute

CHUNK = 1 << 16
BROKEN = (OSError, EOFError, paramiko.SSHException)
"""What Paramiko raises for a connection that cannot be written to: lost, or a key exchange that does not end."""
SEND_SECONDS = 120.0
"""How long a program may leave unread what is sent to it."""
FREE_SECONDS = 1.0
"""How long a server may count a command that has just ended against MaxSessions."""

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class SshConnection(Interruptible):
    """The way to one host by SSH, opened on first use; each command is a channel of a login.

    There is one login, and more where the server allows fewer channels in each (MaxSessions) than run at a time.
    """

    def __init__(self, host: Host, connect_timeout: float, resolver: Resolver | None = None) -> None:
        super().__init__()
        self.host = host
        self._resolver = resolver or this_resolver()
        self._timeout = connect_timeout
        self._lock = threading.RLock()
        self._logins: list[_Sessions] = []
        self._route: tuple[Settings, ...] = ()
        self._resolver.expect(destination_of(host))

    def open(self) -> None:
        """Connect and log in, if that has not been done."""
        with self._lock:
            lost = [sessions for sessions in self._logins if not sessions.login.is_open]
            for sessions in lost:
                sessions.login.close()
                self._logins.remove(sessions)
            if not self._logins:
                self.close()
                self._log_in()

    def start(self, command: str) -> SshRunning:
        """Start a command on a channel of its own."""
        with self._lock:
            self.open()
            for sessions in self._logins:
                if (running := self._start(sessions, command)) is not None:
                    return running
            running = self._start(self._log_in(), command)
        if running is None:
            raise UnreachableError(
                self.host.name,
                "its SSH server lets us in, and refuses every command (MaxSessions 0, or a forced setting)",
                "allow sessions in its sshd_config: MaxSessions 10",
            )
        return running

    def close(self) -> None:
        """Close it, and the connections to jump hosts that no other host uses."""
        for sessions in self._logins:
            sessions.login.close()
        self._logins, self._route = [], ()

    def _log_in(self) -> _Sessions:
        if not self._route:
            with errors_of(self.host):
                self._route = find_route(self.host, self._resolver)
        *jumps, target = self._route
        route = JumpRoute(self.host, tuple(jumps), self._timeout, self.cancelled)
        self._logins.append(_Sessions(route.log_in(target)))
        return self._logins[-1]

    def _start(self, sessions: _Sessions, command: str) -> SshRunning | None:
        """Start a command on a login; return None where its server takes no more at a time."""
        with errors_of(self.host, sessions.login.settings):
            channel = sessions.open(self._timeout)
            if channel is None:
                return None
            with _answered(self.host.name, channel, self._timeout):
                channel.exec_command(command)
        return SshRunning(self.host.name, channel, sessions.login)


class _Sessions:
    """The session channels of a login."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self._channels: list[paramiko.Channel] = []

    def open(self, timeout: float) -> paramiko.Channel | None:
        """Return a new session; None where the server refuses it because of those that are open."""
        deadline = time.monotonic() + FREE_SECONDS
        while True:
            try:
                channel = self.login.transport.open_session(timeout=timeout)
            except paramiko.ChannelException as error:
                if error.code not in (FAILED, *LIMITS):
                    raise
                self._channels = [channel for channel in self._channels if not channel.closed]
                if self._channels or time.monotonic() > deadline:
                    return None
                time.sleep(0.02)  # the last command has ended, and the server may not have noticed yet
            else:
                self._channels = [*(channel for channel in self._channels if not channel.closed), channel]
                return channel


class SshRunning:
    """A command on a channel of its own."""

    def __init__(self, host: str, channel: paramiko.Channel, login: Login) -> None:
        self._host, self._channel, self._login = host, channel, login
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)

    def send(self, data: bytes) -> None:
        """Write to its standard input."""
        deadline, sent = Deadline(SEND_SECONDS), 0
        try:
            while sent < len(data):  # not sendall: with a host that reads a byte now and then it would take days
                self._channel.settimeout(max(0.01, deadline.remaining))
                sent += self._channel.send(data[sent : sent + CHUNK])
        except BROKEN:
            if not self._channel.exit_status_ready():  # else it ended early: its exit status and stderr say why
                raise self._login.lost(self._host) from None

    def close_stdin(self) -> None:
        """End its standard input."""
        try:
            self._channel.shutdown_write()
        except BROKEN:
            return  # the other side closed first

    def read(self, timeout: float) -> tuple[Source, bytes] | None:
        """Return the next output; see `Running`."""
        channel = self._channel
        for attempt in (0, 1):
            if channel.recv_ready():
                self._login.keepalive.heard()
                return "stdout", channel.recv(CHUNK)
            if channel.recv_stderr_ready():
                self._login.keepalive.heard()
                return "stderr", channel.recv_stderr(CHUNK)
            if channel.eof_received or channel.closed:
                return self._rest()
            if attempt == 0:
                self._poll.poll(timeout * 1000)
        self._login.raise_if_silent(self._host)
        return "stdout", b""

    def exit_code(self, timeout: float) -> int | None:
        """Wait for its exit status and return it, None if it is late."""
        if not self._channel.status_event.wait(timeout):
            self._login.raise_if_silent(self._host)
            return None
        code = self._channel.recv_exit_status()
        if code < 0:  # lost, or killed by a signal; a transport that is lost ends its channels before itself
            self._channel.get_transport().join(LOST_SECONDS)
        if code < 0 and not self._channel.get_transport().is_active():
            raise self._login.lost(self._host)
        return code

    def close(self) -> None:
        """Close its channel. A host that is in the middle of a key exchange, or has gone, is left to itself."""
        with suppress(*BROKEN):
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
        with suppress(OSError, EOFError, paramiko.SSHException):  # closed meanwhile
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
