"""The errors of Paramiko and of sockets as ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
from cryptography.exceptions import InvalidTag

from flagscale_deploy.errors import AuthenticationError, ConnectError, TcpError, UnreachableError, causes
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport import hostkeys
from flagscale_deploy.transport.ssh_settings import ConfigProblem, Settings

REFUSED = paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
FAILED = paramiko.common.OPEN_FAILED_CONNECT_FAILED


class StartRefusedError(paramiko.SSHException):
    """A server that closes connections before anybody could log in."""


@contextmanager
def errors_of(host: Host, settings: Settings | None = None, *, jump: bool = False) -> Iterator[None]:
    """Raise everything that Paramiko, sockets and we raise while connecting as a ConnectError.

    `settings` are those of the machine that is connected to; `jump`: a jump host, which the error then names.
    """
    try:
        yield
    except (paramiko.SSHException, OSError, EOFError, InvalidTag, ConfigProblem, ConnectError) as error:
        ours = connect_error(host, error, settings)
        if jump and settings is not None:
            problem = f"jump host {settings.alias}: {ours.problem}"
            raise type(ours)(host.name, problem, ours.remedy) from error
        if ours is error:
            raise
        raise ours from error


def connect_error(host: Host, error: Exception, settings: Settings | None = None) -> ConnectError:
    """Return our error for a foreign one: the one place where this is done."""
    name, address = host.name, settings.hostname if settings else host.address
    where = settings.where if settings else address + (f":{host.port}" if host.port else "")
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, ConfigProblem):
        return ConnectError(name, error.problem, error.remedy)
    if isinstance(error, paramiko.BadHostKeyException):
        return hostkeys.changed(host, error, (), hostkeys.known_name(error.hostname, host.port or 22))
    if isinstance(error, paramiko.PasswordRequiredException):
        return AuthenticationError(name, "the private key has a passphrase", "add it to the SSH agent: ssh-add")
    if isinstance(error, paramiko.AuthenticationException) or "authentication methods" in str(error):
        user = (settings.user if settings else host.user) or "the current user"
        return AuthenticationError(name, f"cannot log in to {where} as {user}: {error}", copy_key(host, address))
    if isinstance(error, socket.gaierror):
        return TcpError(
            name,
            f"the name {address} cannot be resolved",
            "check the spelling, DNS and ~/.ssh/config, or give `address` in the inventory",
        )
    if isinstance(error, TimeoutError):
        return TcpError(name, f"no answer from {where} in time", "is the host up, and its SSH port reachable?")
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        return TcpError(name, f"cannot connect to {where}: {error.strerror}", "is sshd running there?")
    kind = TcpError if _is_beneath_ssh(error) else UnreachableError
    target = settings.alias if settings else address
    if isinstance(error, StartRefusedError):
        remedy = f"raise MaxStartups in its sshd_config if it has many logins at a time; try: ssh {target}"
        return kind(name, f"SSH to {where} failed: {error}", remedy)
    return kind(name, f"SSH to {where} failed: {str(error) or type(error).__name__}", f"try: ssh {target}")


def copy_key(host: Host, address: str, jump: str | None = None) -> str:
    """Return the remedy for a login that was refused: the host's, or that to the jump host of a name."""
    keys = f"`user` and `identity_file` for {host.name} in the inventory"
    if jump:
        keys = f"`User` and `IdentityFile` for {jump} in ~/.ssh/config"
    return f"copy your key to {address} with ssh-copy-id, or set {keys}"


def forwarding_error(host: Host, via: Settings, target: str, error: Exception) -> ConnectError:
    """Return the error for a jump host that does not connect us to the next."""
    on_jump_host = f"on {via.alias}: does the name resolve, and does sshd listen there?"
    if isinstance(error, TimeoutError):
        return TcpError(host.name, f"jump host {via.alias} cannot connect to {target} in time", on_jump_host)
    if not isinstance(error, paramiko.ChannelException):
        return lost_error(host.name, via)
    if error.code == REFUSED:
        problem = f"jump host {via.alias} forbids connections to {target}"
        return UnreachableError(host.name, problem, "allow them in its sshd_config: AllowTcpForwarding, PermitOpen")
    reason = f" ({error.text})" if error.text and error.text != "open failed" else ""
    return TcpError(host.name, f"jump host {via.alias} cannot connect to {target}{reason}", on_jump_host)


def lost_error(host: str, jump: Settings | None = None) -> UnreachableError:
    """Return the error for a connection that was lost: the host's, or that to a jump host before it."""
    if jump is None:
        return UnreachableError(
            host, "the SSH connection was lost", "check the host and the network, then run `status`"
        )
    problem = f"jump host {jump.alias}: the SSH connection was lost"
    return UnreachableError(host, problem, "check the jump host and the network, then run `status`")


def silence_error(host: str, seconds: float, jump: Settings | None = None) -> UnreachableError:
    """Return the error for a server that answers no more: the host's, or that of a jump host before it."""
    name, whose = (f"jump host {jump.alias}: ", "the jump host's") if jump else ("", "the host's")
    problem = f"{name}its SSH server has not answered for {seconds:.0f} s"
    return UnreachableError(host, problem, f"look at {whose} load and disks")


def mismatch_error(host: Host, where: str, mismatches: list[tuple[str, list[str], list[str]]]) -> ConnectError:
    """Return the error for a server that we have no algorithm in common with."""
    kind, theirs, ours = mismatches[0]
    problem = f"no common {kind} algorithm with {where}: it offers {', '.join(theirs)}; supported are {', '.join(ours)}"
    return UnreachableError(host.name, problem, "allow one of the supported algorithms in its sshd_config")


def _is_beneath_ssh(error: Exception) -> bool:
    """Return whether TCP failed and not SSH: here, or from a jump host to the next.

    Paramiko replaces an error of the socket by one of its own while it reads the banner; it keeps the first as context.
    """
    if isinstance(error, paramiko.ChannelException):
        return error.code == FAILED
    if isinstance(error, OSError):
        return True
    sockets = (cause for cause in causes(error) if isinstance(cause, OSError))
    return any(cause.errno is not None for cause in sockets)  # without is Paramiko's own: the banner is late
