"""Log in with keys, and say which were tried where none is accepted."""

from __future__ import annotations

from collections.abc import Sequence

import paramiko

from flagscale_deploy.errors import AuthenticationError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.identities import Identities, Identity, identities
from flagscale_deploy.transport.ssh_errors import copy_key
from flagscale_deploy.transport.ssh_notes import NOTES
from flagscale_deploy.transport.ssh_settings import Settings
from flagscale_deploy.transport.ssh_transport import Transport

PUBLIC_KEY = "publickey"
PATIENCE = 4
"""How many times its timeout a server may take over all keys together."""
NAMED = 4
"""How many keys a message names."""


def log_in(transport: Transport, host: Host, settings: Settings, *, jump: bool = False) -> None:
    """Log in with the first key that the server accepts; `jump`: to a jump host. Raises AuthenticationError."""
    keys = identities(settings)
    for path, problem in keys.passed_over:
        NOTES.info("%s: identity file %s is passed over: %s", host.name, path, problem)
    try:
        _Attempt(transport, host, settings, keys, jump=jump).make()
    finally:
        keys.close()


class _Attempt:
    """One login: what was offered so far, and what the server said."""

    def __init__(self, transport: Transport, host: Host, settings: Settings, keys: Identities, *, jump: bool) -> None:
        self._transport, self._host, self._settings, self._keys, self._jump = transport, host, settings, keys, jump
        self._refused: list[Identity] = []

    def make(self) -> None:
        """Log in. Raises AuthenticationError, and TimeoutError where the server takes too long over all keys."""
        deadline = Deadline(PATIENCE * self._transport.auth_timeout)
        for identity in self._keys.offers:
            if deadline.expired:
                raise TimeoutError
            try:
                remaining = self._transport.auth_publickey(self._settings.user, identity.key)
            except paramiko.BadAuthenticationType as error:
                raise self._not_by_key(error.allowed_types) from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                self._refused.append(identity)
                if not self._transport.is_active():
                    raise self._ended() from error
                continue
            if not remaining:
                return
            if PUBLIC_KEY not in remaining:
                raise self._second_factor(identity, remaining)
        self._without_key()

    def _without_key(self) -> None:
        """Try to log in without a key, as ssh does first: some servers know who connects by other means."""
        try:
            self._transport.auth_none(self._settings.user)
        except paramiko.BadAuthenticationType as error:
            if PUBLIC_KEY not in error.allowed_types:
                raise self._not_by_key(error.allowed_types) from error
            raise self._refusal() from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._refusal() from error

    def _refusal(self) -> AuthenticationError:
        tried = f"the server refused {_named(self._refused)}" if self._refused else "there is no key to offer"
        passed_over = [f"{path} is passed over: {problem}" for path, problem in self._keys.passed_over]
        detail = "; ".join([tried, *passed_over, *([self._keys.agent] if self._keys.agent else [])])
        return self._error(detail, self._remedy())

    def _remedy(self) -> str:
        if self._keys.locked:
            return f"add it to the SSH agent: ssh-add {self._keys.locked[0]}"
        return copy_key(self._host, self._settings.hostname, self._settings.alias if self._jump else None)

    def _ended(self) -> AuthenticationError:
        farewell = self._transport.farewell or "no reason given"
        count = len(self._refused)
        of_host = "" if self._jump else f"`identity_file` in the inventory for {self._host.name}, or "
        keys = f"{count} key{'' if count == 1 else 's'}"
        return self._error(
            f"the server ended the login after {keys} ({farewell}): {_named(self._refused)}",
            f"name the right key: {of_host}IdentityFile with `IdentitiesOnly yes` in ~/.ssh/config",
        )

    def _second_factor(self, identity: Identity, remaining: Sequence[str]) -> AuthenticationError:
        return self._error(
            f"the server accepts {identity.name} and then demands a second factor ({', '.join(remaining)})",
            "nobody can be asked here: let this user in by key alone (AuthenticationMethods publickey in sshd_config)",
        )

    def _not_by_key(self, allowed: Sequence[str]) -> AuthenticationError:
        return self._error(
            f"the server takes no keys, only {', '.join(allowed)}",
            "allow keys there (PubkeyAuthentication yes in sshd_config); passwords are not supported",
        )

    def _error(self, detail: str, remedy: str) -> AuthenticationError:
        problem = f"cannot log in to {self._settings.where} as {self._settings.user}: {detail}"
        return AuthenticationError(self._host.name, problem, remedy)


def _named(identities: Sequence[Identity]) -> str:
    """Return the names of keys: the files, and how many of the agent's."""
    names = [identity.name for identity in identities]
    agents = sum(identity.of_agent for identity in identities)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more + (f" ({agents} of them from the SSH agent)" if agents else "")
