"""One authenticated connection to one machine: the socket, the host key, the login."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import paramiko

from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.authentication import log_in
from flagscale_deploy.transport.hostkeys import HostKeys
from flagscale_deploy.transport.keepalive import Keepalive
from flagscale_deploy.transport.proxy_command import ProxyCommand
from flagscale_deploy.transport.ssh_errors import errors_of, forwarding_error, mismatch_error
from flagscale_deploy.transport.ssh_settings import ConfigProblem, Settings
from flagscale_deploy.transport.ssh_transport import Transport, notice_silence, wake

LOST_SECONDS = 0.5


class Login:
    """A connection to the machine of `settings`, opened at once; `via` is the jump host that it goes through.

    `host` is whom errors are about: the host itself, or that behind a jump host. Raises ConnectError.
    """

    def __init__(self, host: Host, settings: Settings, timeout: float, *, via: Login | None, jump: bool) -> None:
        self.settings, self._host, self._timeout, self._jump = settings, host, timeout, jump
        self._proxy: ProxyCommand | None = None
        with errors_of(host, settings, jump=jump):
            self._keys = HostKeys(host, settings, jump=jump)
        connection = self._connect(via)
        self.transport = Transport(connection)
        try:
            with errors_of(host, settings, jump=jump):
                self._open()
        except BaseException:
            self.close()
            raise
        notice_silence(self.transport)
        self.keepalive = Keepalive(self.transport)

    @property
    def is_open(self) -> bool:
        """Return whether it has been opened and not been lost since."""
        return self.transport.is_active()

    def forward(self, target: Settings) -> paramiko.Channel:
        """Return a channel to another machine, which this one connects to."""
        with errors_of(self._host, self.settings, jump=self._jump):
            try:
                place = (target.hostname, target.port)
                return self.transport.open_channel("direct-tcpip", place, ("127.0.0.1", 0), timeout=self._timeout)
            except paramiko.ChannelException as error:
                refusal = forwarding_error(
                    self._host, self.settings, f"{target.hostname}:{target.port}", error, self.transport.refusal
                )
        raise refusal

    def close(self) -> None:
        """Close it; harmless when closed."""
        wake(self.transport)
        self.transport.close()
        with suppress(OSError):
            self.transport.sock.close()
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self.transport.is_alive():
            self.transport.join(LOST_SECONDS)  # Paramiko waits for no thread that has noticed the end itself

    def _connect(self, via: Login | None) -> Any:
        if via is not None:
            return via.forward(self.settings)
        with errors_of(self._host, self.settings, jump=self._jump):
            if self.settings.proxy_command is not None:
                self._proxy = ProxyCommand(self.settings.proxy_command)
                return self._proxy.socket
            return _tcp(self.settings, self._timeout)

    def _open(self) -> None:
        transport = self.transport
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
            raise
        if not transport.initial_kex_done:
            raise paramiko.SSHException("its SSH server does not finish the handshake in time")
        self._keys.verify(transport.get_remote_server_key())
        log_in(transport, self._host, self.settings)


def _tcp(settings: Settings, timeout: float) -> socket.socket:
    """Return a TCP connection to the first address of a name that answers. Raises OSError."""
    errors: dict[Any, OSError] = {}
    places = socket.getaddrinfo(settings.hostname, settings.port, settings.family, socket.SOCK_STREAM)
    for family, kind, protocol, _, place in places:
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
