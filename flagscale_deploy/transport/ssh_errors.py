"""The errors of Paramiko and of sockets as ours."""

from __future__ import annotations

import socket

import paramiko

from flagscale_deploy.errors import AuthenticationError, ConnectError, TcpError, UnreachableError, causes
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport import hostkeys


def connect_error(host: Host, error: Exception) -> ConnectError:
    """Return our error for a foreign one: the one place where this is done."""
    name, where = host.name, f"{host.address}" + (f":{host.port}" if host.port else "")
    if isinstance(error, paramiko.BadHostKeyException):
        known_as = hostkeys.known_name(error.hostname, host.port or 22)
        return hostkeys.changed(host, error, hostkeys.known_hosts_files(host, {}), known_as)
    if isinstance(error, paramiko.PasswordRequiredException):
        return AuthenticationError(name, "the private key has a passphrase", "add it to the SSH agent: ssh-add")
    if isinstance(error, paramiko.AuthenticationException) or "authentication methods" in str(error):
        return AuthenticationError(
            name,
            f"cannot log in to {where} as {host.user or 'the current user'}: {error}",
            f"copy your key there with ssh-copy-id, or set `user` and `identity_file` for {name} in the inventory",
        )
    if isinstance(error, socket.gaierror):
        return TcpError(
            name,
            f"the name {host.address} cannot be resolved",
            "check the spelling, DNS and ~/.ssh/config, or give `address` in the inventory",
        )
    if isinstance(error, TimeoutError):
        return TcpError(name, f"no answer from {where} in time", "is the host up, and its SSH port reachable?")
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        return TcpError(name, f"cannot connect to {where}: {error.strerror}", "is sshd running there?")
    if isinstance(error, ConnectError):
        return error
    kind = TcpError if _is_beneath_ssh(error) else UnreachableError
    return kind(name, f"SSH to {where} failed: {str(error) or type(error).__name__}", f"try: ssh {host.address}")


def _is_beneath_ssh(error: Exception) -> bool:
    """Return whether TCP failed and not SSH: here, or from a jump host to the next.

    Paramiko replaces an error of the socket by one of its own while it reads the banner; it keeps the first as context.
    """
    if isinstance(error, paramiko.ChannelException):
        return error.code == paramiko.common.OPEN_FAILED_CONNECT_FAILED
    if isinstance(error, OSError):
        return True
    sockets = (cause for cause in causes(error) if isinstance(cause, OSError))
    return any(cause.errno is not None for cause in sockets)  # without is Paramiko's own: the banner is late
