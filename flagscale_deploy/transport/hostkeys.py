"""Verify the keys of hosts by known_hosts, and add new ones where that is allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import paramiko

from flagscale_deploy.errors import HostKeyError, InputError
from flagscale_deploy.inventory.model import Host, HostKeyChecking
from flagscale_deploy.remote.system.files import make_private_directory
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.shell import quote
from flagscale_deploy.transport.host_certificates import certificate_problem
from flagscale_deploy.transport.known_hosts import KnownHosts, is_among, lines_of, read_known_hosts
from flagscale_deploy.transport.revoked_keys import is_revoked
from flagscale_deploy.transport.ssh_settings import Settings, split_paths

CERTIFIED = "-cert-v01@openssh.com"

_FROM_SSH_CONFIG: Mapping[str, HostKeyChecking] = {
    "yes": "strict", "true": "strict", "ask": "strict", "accept-new": "accept-new",
    "no": "off", "false": "off", "off": "off",
}  # fmt: skip
_writing = threading.Lock()


def checking(host: Host, configured: str, *, jump: bool = False) -> HostKeyChecking:
    """Return the inventory's choice, else StrictHostKeyChecking of the SSH configuration, else strict.

    `off` applies to the host, never to its jump host, which all others are reached through.
    """
    if host.host_key_checking is None or (jump and host.host_key_checking == "off"):
        return _FROM_SSH_CONFIG.get(configured.lower(), "strict")
    return host.host_key_checking


def known_hosts_files(host: Host, settings: Settings) -> list[Path]:
    """Return the files with known keys; the first one is where accept-new adds."""
    users = settings.user_known_hosts
    if host.known_hosts:
        users = tuple(Path(path).expanduser() for path in split_paths(host.known_hosts))
    return [*users, *settings.global_known_hosts]


def known_name(address: str, port: int) -> str:
    """Return what known_hosts calls a machine (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return address if port == 22 else f"[{address}]:{port}"


class HostKeys:
    """What is known of the keys of one machine, and what becomes of one that is not.

    `jump`: it is not the host itself, but a jump host on the way. Raises HostKeyError for a known_hosts file that can't
    be read.
    """

    def __init__(self, host: Host, settings: Settings, *, jump: bool = False) -> None:
        self._host = host
        self._files = known_hosts_files(host, settings)
        self._revoked_file = settings.revoked_host_keys
        self._mode = checking(host, settings.strict, jump=jump)
        self._address = settings.host_key_alias or settings.hostname
        self.name = settings.host_key_alias or known_name(settings.hostname, settings.port)
        self._known = {path: _read(host, path) for path in self._files if path.is_file()} if self._mode != "off" else {}

    def algorithms(self, offered: Sequence[str]) -> tuple[str, ...]:
        """Return host key algorithms, those of known keys first; certificates only where an authority is known."""
        kinds = {key.get_name() for key in self._keys(self.name)} | {key.get_name() for key in self._plain_keys()}
        certified = [f"{name}{CERTIFIED}" for name in offered] if self._authorities() else []
        return (*certified, *sorted(offered, key=lambda name: _kind(name) not in kinds))

    def verify(self, key: paramiko.PKey) -> None:
        """Raise HostKeyError unless the key that the machine shows is to be trusted; remember a new one if allowed."""
        if self._revoked_file and is_revoked(self._revoked_file, key):
            raise self._revoked_error(key, self._revoked_file)
        if self._mode == "off":
            return
        self._refuse_revoked(key, self.name)
        problem = self._refused_certificate(key)
        if problem == "":
            return
        if self._is_trusted(key):
            return
        self._refuse_revoked(key, self._address)
        self._add_or_refuse(key, problem)

    def _is_trusted(self, key: paramiko.PKey) -> bool:
        """Return whether the key is known, False if no key is. Raises HostKeyError where another one is known."""
        trusted = self._keys(self.name)
        blobs = {other.get_base64() for other in (*trusted, *self._plain_keys())}
        if key.get_base64() in blobs:
            return True
        if trusted:
            expected = next((other for other in trusted if other.get_name() == key.get_name()), trusted[0])
            raise changed(
                self._host, paramiko.BadHostKeyException(self._address, key, expected), self._files, self.name
            )
        return False

    def _keys(self, name: str) -> list[paramiko.PKey]:
        revoked = set(self._revoked(name))
        keys = (key for lines in self._known.values() for _, key in lines.trusted.keys_of(name))
        return [key for key in keys if key.get_base64() not in revoked]

    def _plain_keys(self) -> list[paramiko.PKey]:
        """Return the keys of the name without its port, which ssh falls back to; only an equal one counts.

        There is none where keys of the name with its port are known: behind a gateway, another machine has each port.
        """
        return self._keys(self._address) if self.name != self._address and not self._keys(self.name) else []

    def _authorities(self) -> list[paramiko.PKey]:
        revoked = set(self._revoked(self.name))
        names = dict.fromkeys((self.name, self._address))
        keys = (key for file in self._known.values() for name in names for _, key in file.authorities.keys_of(name))
        return [key for key in keys if key.get_base64() not in revoked]

    def _revoked(self, name: str) -> Mapping[str, str]:
        """Return the revoked keys, with the lines where they stand."""
        return {
            key.get_base64(): f"{path}:{at + 1}"
            for path, lines in self._known.items()
            for at, key in lines.revoked.keys_of(name)
        }

    def _refuse_revoked(self, key: paramiko.PKey, name: str) -> None:
        if place := self._revoked(name).get(key.get_base64()):
            raise self._revoked_error(key, place)

    def _revoked_error(self, key: paramiko.PKey, place: str) -> HostKeyError:
        return HostKeyError(
            self._host.name,
            f"its host key is revoked: {self.name} shows {_shown(key)}, see {place}",
            "somebody else may have that key: give the host a new one",
        )

    def _refused_certificate(self, key: paramiko.PKey) -> str | None:
        """Return why the key's certificate is not valid here, "" where it is, and None where there is none."""
        if key.public_blob is None:
            return None
        return certificate_problem(key.public_blob, self._address, (auth.get_base64() for auth in self._authorities()))

    def _add_or_refuse(self, key: paramiko.PKey, problem: str | None) -> None:
        line = f"{self.name} {key.get_name()} {key.get_base64()}"
        if self._mode == "accept-new" and self._files:
            self._add(key, line)
            return
        add = f"then: echo {quote(line)} >> {quote(str(self._files[0]))} (or" if self._files else "(or"
        raise HostKeyError(
            self._host.name,
            f"its host key is not known: {self.name} shows {_shown(key)}"
            + (f" with a certificate that {problem}" if problem else "")
            + f", searched {', '.join(str(path) for path in self._files) or 'no file'}",
            f"compare the fingerprint on the host, {add} host_key_checking: accept-new)",
        )

    def _add(self, key: paramiko.PKey, line: str) -> None:
        """Remember a new key. Raises HostKeyError if another one was added since the files were read."""
        with _writing:
            path = self._files[0]
            if path.is_file():
                self._known[path] = _read(self._host, path)
            self._refuse_revoked(key, self.name)
            if not self._is_trusted(key):
                try:
                    _append(path, line)
                except OSError as error:
                    problem = f"its host key is new, and cannot be remembered: {path}: {error.strerror}"
                    raise HostKeyError(self._host.name, problem, "name a file for `known_hosts`") from error


def changed(host: Host, error: paramiko.BadHostKeyException, files: Sequence[Path], name: str) -> HostKeyError:
    """Return the error for a key that differs from the known one; `name` is the machine's in known_hosts."""
    place = _place(files, name, error.expected_key)
    file = place.rpartition(":")[0] or next((str(path) for path in files), "~/.ssh/known_hosts")
    return HostKeyError(
        host.name,
        f"its host key changed: {name} shows {_shown(error.key)}, "
        f"{place or 'known_hosts'} has {_shown(error.expected_key)}",
        f"if it was reinstalled: ssh-keygen -f {quote(file)} -R {quote(name)}; otherwise someone may be in between",
    )


def _shown(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _kind(algorithm: str) -> str:
    """Return the type of key that an algorithm needs: RSA keys sign with several."""
    return "ssh-rsa" if algorithm.startswith("rsa-") else algorithm


def _place(files: Iterable[Path], name: str, key: paramiko.PKey) -> str:
    """Return the file and line that a known key stands in, `file:12`; "" where it is not there any more."""
    for path in files:
        with suppress(InputError):
            for number, line in enumerate(lines_of(path), 1):
                names, _, rest = line.strip().partition(" ")
                if key.get_base64() in rest and is_among(name, names):
                    return f"{path}:{number}"
    return ""


def _read(host: Host, path: Path) -> KnownHosts:
    try:
        refuse_planted(Path(), path)
        return read_known_hosts(path)
    except OSError as error:
        raise HostKeyError(host.name, f"known hosts file {path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise HostKeyError(host.name, f"known hosts file {path} {error.faults[0].problem}") from error


def _append(path: Path, line: str) -> None:
    make_private_directory(path.parent)
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        content = file.read()
        file.write(("\n" if content and not content.endswith("\n") else "") + line + "\n")
