"""Log in to a machine, through shared connections to the jump hosts before it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from threading import Event

import paramiko

from flagscale_deploy.errors import ConnectError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.hostkeys import checking, known_hosts_files
from flagscale_deploy.transport.jump_hosts import DialLateError, JumpChannel, JumpHosts
from flagscale_deploy.transport.login import Login
from flagscale_deploy.transport.ssh_errors import forwarding_error
from flagscale_deploy.transport.ssh_settings import Settings

JUMP_HOSTS: JumpHosts[Login] = JumpHosts()
"""Those of this process; a connection ends with the last host behind it."""


@dataclass(frozen=True)
class JumpRoute:
    """The route of one host through its jump hosts, the first hop first; there may be none."""

    host: Host
    jumps: tuple[Settings, ...]
    timeout: float
    cancelled: Event

    @property
    def names(self) -> tuple[str, ...]:
        """Return the addresses of the jump hosts."""
        return tuple(jump.where for jump in self.jumps)

    def log_in(self, settings: Settings, *, jump: bool = False) -> Login:
        """Return a new connection to the machine at its end. Raises ConnectError."""
        via = self if self.jumps else None
        return Login(self.host, settings, self.timeout, via=via, jump=jump, cancelled=self.cancelled)

    def open_channel(self, target: Settings) -> JumpChannel[Login]:
        """Return a channel to a machine behind the last jump host. Raises ConnectError."""
        *before, last = self.jumps
        route = JumpRoute(self.host, tuple(before), self.timeout, self.cancelled)
        try:
            return JUMP_HOSTS.open(
                self._key(),
                (target.hostname, target.port),
                dial=lambda: route.log_in(last, jump=True),
                timeout=self.timeout,
                cancelled=self.cancelled,
            )
        except ConnectError as error:
            if error.host == self.host.name:
                raise
            raise type(error)(self.host.name, error.problem, error.remedy) from error
        except DialLateError as error:
            problem = f"jump host {last.alias}: no connection to {last.where} in time"
            raise UnreachableError(self.host.name, problem, f"try: ssh {last.alias}") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise forwarding_error(self.host, last, f"{target.hostname}:{target.port}", error) from error

    def _key(self) -> Hashable:
        """Return what hosts have in common that may share a connection: settings, and what they trust."""
        modes = tuple(checking(self.host, jump.strict, jump=True) for jump in self.jumps)
        files = tuple(tuple(known_hosts_files(self.host, jump)) for jump in self.jumps)
        return self.jumps, modes, files
