"""One authenticated connection to one machine: the socket, the host key, the login."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any, Protocol

import paramiko

from flagscale_deploy.errors import InterruptedByUser, UnreachableError, causes
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.authentication import log_in
from flagscale_deploy.transport.forwarding import Opening
from flagscale_deploy.transport.hostkeys import HostKeys
from flagscale_deploy.transport.jump_hosts import JumpChannel
from flagscale_deploy.transport.keepalive import Keepalive
from flagscale_deploy.transport.login_limit import LoginLimit, Slot
from flagscale_deploy.transport.proxy_command import ProxyCommand
from flagscale_deploy.transport.ssh_errors import (
    StartRefusedError,
    errors_of,
    lost_error,
    mismatch_error,
    silence_error,
)
from flagscale_deploy.transport.ssh_settings import ConfigProblem, Settings
from flagscale_deploy.transport.ssh_transport import Transport, notice_silence, wake

LOST_SECONDS = 0.5
RETRY_SECONDS = 10.0
"""For how long a server that closes connections before the login is tried again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between one try and the next, which double; up to a half is added or taken off at random."""
PATIENCE = 4
"""How many times the timeout a login waits for others at its address while none of them succeeds, and goes from one
address of a name to the next."""
ANSWER_SECONDS = 5.0

LIMIT = LoginLimit()
"""That of this process: for all hosts and jump hosts of all commands."""


class Via(Protocol):
    """The way through jump hosts."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the addresses of the jump hosts, the first hop first."""

    def open_channel(self, target: Settings) -> JumpChannel[Login]:
        """Return a channel to a machine behind them. Raises ConnectError."""


class Login:
    """A connection to the machine of `settings`, opened at once; `via` is the way through jump hosts before it.

    `host` is whom errors are about: the host itself, or that behind a jump host. A server that closes the connection
    before the login, as sshd does past MaxStartups, is tried again. Raises ConnectError, and InterruptedByUser once
    `cancelled` is set where it waits for its turn.
    """

    def __init__(
        self, host: Host, settings: Settings, timeout: float, *, via: Via | None, jump: bool, cancelled: Event
    ) -> None:
        self.settings, self._host, self._via, self._cancelled = settings, host, via, cancelled
        self._timeout, self._jump = timeout, jump
        self._proxy: ProxyCommand | None = None
        self._jump_channel: JumpChannel[Login] | None = None
        self._slot: Slot | None = None
        with errors_of(host, settings, jump=jump):
            self._keys = HostKeys(host, settings, jump=jump)
        self.transport = self._started()
        notice_silence(self.transport)
        self.keepalive = Keepalive(self.transport)

    @property
    def is_open(self) -> bool:
        """Return whether it has been opened and not been lost since."""
        return self.transport.is_active()

    def request(self, place: tuple[str, int]) -> Opening:
        """Ask for a channel to another machine, which this one connects to."""
        return Opening(self.transport, place)

    def answers(self) -> bool:
        """Return whether the server answers within 5 s."""
        return self.keepalive.answers(ANSWER_SECONDS)

    def lost(self, host: str) -> UnreachableError:
        """Return the error for a connection that was lost: the host's, or that to the first jump host before it."""
        return lost_error(host, self._lost_hop())

    def raise_if_silent(self, host: str, *, jump: bool = False) -> None:
        """Raise UnreachableError, and end the connection, where a server on the way has not answered for too long."""
        if (through := self._jump_channel) is not None:
            through.login.raise_if_silent(host, jump=True)
        if silent := self.keepalive.silent_for():
            self.transport.close()
            raise silence_error(host, silent, self.settings if jump else None)

    def close(self) -> None:
        """Close it; harmless when closed."""
        _end(self.transport)
        self._give_back()

    def _lost_hop(self) -> Settings | None:
        """Return the settings of the first jump host on the way whose connection is lost."""
        if (through := self._jump_channel) is None:
            return None
        channel, jump = through.channel, through.login
        if channel.closed and not channel.eof_received:  # its transport ends it before itself
            jump.transport.join(LOST_SECONDS)
        return jump._lost_hop() or (None if jump.is_open else jump.settings)

    def _started(self) -> Transport:
        """Return a transport that has logged in; try again where the server closes the connection before that."""
        tries = _Tries(min(RETRY_SECONDS, self._timeout), self._cancelled)
        while True:
            try:
                connection = self._connected()
                with errors_of(self._host, self.settings, jump=self._jump):
                    try:
                        return self._logged_in(connection)
                    except StartRefusedError as error:
                        self._leave()  # through the pause, a shared jump host is kept
                        tries.count(error)
                tries.pause()
            except BaseException:
                self._give_back()
                raise

    def _logged_in(self, connection: Any) -> Transport:
        transport = Transport(connection)
        try:
            self._open(transport)
            log_in(transport, self._host, self.settings, jump=self._jump)
        except BaseException as error:
            hop = self._lost_hop()
            _end(transport)
            if hop is not None:
                raise lost_error(self._host.name, hop) from error
            raise
        if self._slot is not None:
            self._slot.release(logged_in=True)
        return transport

    def _give_back(self) -> None:
        """Give back what the connection was made of."""
        self._leave()
        if self._jump_channel is not None:
            self._jump_channel.close()
            self._jump_channel = None

    def _leave(self) -> None:
        """Let others log in, and end the ProxyCommand."""
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self._slot is not None:
            self._slot.release()

    def _connected(self) -> Any:
        if self._via is not None:
            with errors_of(self._host, self.settings, jump=self._jump):
                self._acquire_slot((*self._via.names, self.settings.hostname))
            refused, self._jump_channel = self._jump_channel, self._via.open_channel(self.settings)
            if refused is not None:
                refused.close()
            return self._jump_channel.channel
        with errors_of(self._host, self.settings, jump=self._jump):
            if self.settings.proxy_command is not None:
                self._acquire_slot(("ProxyCommand", self.settings.proxy_pattern))
                self._proxy = ProxyCommand(self.settings.proxy_command)
                return self._proxy.socket
            return _tcp(self.settings, self._timeout, self._acquire_slot)

    def _acquire_slot(self, address: object) -> None:
        """Wait for a slot at an address, in place of the one before."""
        if self._slot is not None:
            self._slot.release()
        self._slot = LIMIT.acquire(address, PATIENCE * self._timeout, self._cancelled)

    def _open(self, transport: Transport) -> None:
        transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = self._timeout
        options = transport.get_security_options()
        options.key_types = self._keys.algorithms(options.key_types)
        try:
            transport.start_client(timeout=self._timeout)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            if mismatches := transport.mismatches():
                raise mismatch_error(self._host, self.settings.where, mismatches) from error
            raise
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._proxy is not None and (failure := self._proxy.failure()):
                raise ConfigProblem(failure, f"try: ssh {self.settings.alias}") from error
            if any(isinstance(cause, (EOFError, ConnectionError)) for cause in causes(error)):
                raise StartRefusedError("the server closed the connection before the login") from error
            raise
        if not transport.initial_kex_done:
            raise paramiko.SSHException("its SSH server does not finish the handshake in time")
        self._keys.verify(transport.get_remote_server_key())


class _Tries:
    """The tries of one login at a server that closes connections: less and less often, for some time."""

    def __init__(self, seconds: float, cancelled: Event) -> None:
        self._deadline, self._cancelled = Deadline(seconds), cancelled
        self._number, self._pause = 0, FIRST_PAUSE

    def count(self, error: StartRefusedError) -> None:
        """Count a try that failed. Raises StartRefusedError when it was the last one."""
        self._number += 1
        if self._deadline.expired:
            raise StartRefusedError(f"{error} ({self._number} tries)") from error

    def pause(self) -> None:
        """Wait until the next try. Raises InterruptedByUser."""
        if self._cancelled.wait(self._pause * random.uniform(0.5, 1.5)):
            raise InterruptedByUser("interrupted")
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _end(transport: Transport) -> None:
    wake(transport)
    transport.close()
    with suppress(OSError):
        transport.sock.close()
    if transport.is_alive():
        transport.join(LOST_SECONDS)  # Paramiko waits for no thread that has noticed the end itself


def _tcp(settings: Settings, timeout: float, acquire: Callable[[str], None]) -> socket.socket:
    """Return a TCP connection to the first address of a name that answers; `acquire` its slot first. Raises OSError.

    No further address is tried after PATIENCE times the timeout: a name server may give thousands.
    """
    errors: dict[Any, OSError] = {}
    places = socket.getaddrinfo(settings.hostname, settings.port, settings.family, socket.SOCK_STREAM)
    deadline = Deadline(PATIENCE * (settings.connect_timeout or timeout))
    for family, kind, protocol, _, place in places:
        if errors and deadline.expired:
            break
        acquire(str(place[0]))
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(settings.connect_timeout or timeout)
            if settings.bind_address:
                connection.bind((settings.bind_address, 0))
            connection.connect(place)
            return connection
        except OSError as error:
            connection.close()
            errors[place] = error
    refused = [error for error in errors.values() if isinstance(error, ConnectionRefusedError)]
    if len(refused) == len(errors):
        raise paramiko.ssh_exception.NoValidConnectionsError(errors)
    raise next(error for error in errors.values() if not isinstance(error, ConnectionRefusedError))
