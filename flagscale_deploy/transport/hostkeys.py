"""Verify the keys of hosts by known_hosts, and add new ones where that is allowed."""

from __future__ import annotations

import fnmatch
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from flagscale_deploy.errors import HostKeyError, InputError
from flagscale_deploy.inventory.model import Host, HostKeyChecking
from flagscale_deploy.remote.system.files import make_private_directory
from flagscale_deploy.support.input_files import read_bytes
from flagscale_deploy.support.shell import quote

SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts"

_FROM_SSH_CONFIG: Mapping[str, HostKeyChecking] = {
    "yes": "strict", "ask": "strict", "accept-new": "accept-new", "no": "off", "off": "off",
}  # fmt: skip
LARGEST = 64 << 20
_writing = threading.Lock()


def checking(host: Host, ssh_config: Mapping[str, object], *, jump: bool = False) -> HostKeyChecking:
    """Return the inventory's choice, else StrictHostKeyChecking of `~/.ssh/config`, else strict.

    `off` applies to the host, never to its jump host, which all others are reached through.
    """
    configured = _FROM_SSH_CONFIG.get(str(ssh_config.get("stricthostkeychecking", "yes")).lower(), "strict")
    return (
        configured
        if host.host_key_checking is None or (jump and host.host_key_checking == "off")
        else host.host_key_checking
    )


def known_hosts_files(host: Host, ssh_config: Mapping[str, object]) -> list[Path]:
    """Return the files with known keys; the first one is where accept-new adds."""
    chosen = host.known_hosts or cast(str, ssh_config.get("userknownhostsfile", USER_KNOWN_HOSTS))
    return [Path(path).expanduser() for path in (*chosen.split(), SYSTEM_KNOWN_HOSTS)]


def install(
    client: paramiko.SSHClient, host: Host, ssh_config: Mapping[str, object], name: str, *, jump: bool = False
) -> None:
    """Make a client verify keys as `host` wants it; `name` is what known_hosts calls the machine.

    `jump`: that is not the host itself, but a jump host on the way. Raises HostKeyError for a known_hosts file that
    can't be read.
    """
    files = known_hosts_files(host, ssh_config)
    mode = checking(host, ssh_config, jump=jump)
    entries = {path: _known(host, path) for path in files if path.is_file()} if mode != "off" else {}
    revoked = {
        key.get_base64(): f"{path}:{at + 1}"
        for path, lines in entries.items()
        for at, key in lines.revoked.keys_of(name)
    }
    for lines in entries.values():
        for _, key in lines.trusted.keys_of(name):
            if key.get_base64() not in revoked:
                client.get_host_keys().add(name, key.get_name(), key)
    client.set_missing_host_key_policy(_Policy(host, mode, files, revoked))


def known_name(address: str, port: int) -> str:
    """Return what known_hosts calls a machine (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return address if port == 22 else f"[{address}]:{port}"


def changed(host: Host, error: paramiko.BadHostKeyException, files: Sequence[Path], name: str) -> HostKeyError:
    """Return the error for a key that differs from the known one; `name` is the machine's in known_hosts."""
    place = _place(files, name, error.expected_key)
    file = place.rpartition(":")[0] if place else str(files[0])
    return HostKeyError(
        host.name,
        f"its host key changed: {name} shows {error.key.get_name()} {error.key.fingerprint}, "
        f"{place or 'known_hosts'} has {error.expected_key.get_name()} {error.expected_key.fingerprint}",
        f"if it was reinstalled: ssh-keygen -f {quote(file)} -R {quote(name)}; otherwise someone may be in between",
    )


def _place(files: Sequence[Path], name: str, key: paramiko.PKey) -> str:
    """Return the file and line that a known key stands in, `file:12`; "" where it is not there any more."""
    for path in files:
        with suppress(InputError):
            for number, line in enumerate(_lines_of(path), 1):
                names, _, rest = line.strip().partition(" ")
                if key.get_base64() in rest and _is_among(name, names):
                    return f"{path}:{number}"
    return ""


class _Policy(paramiko.MissingHostKeyPolicy):
    """Paramiko asks it about keys that no file knows."""

    def __init__(self, host: Host, mode: HostKeyChecking, files: Sequence[Path], revoked: Mapping[str, str]) -> None:
        self._host, self._mode, self._files, self._revoked = host, mode, files, revoked

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        line = f"{hostname} {key.get_name()} {key.get_base64()}"
        if self._mode == "off":
            return
        if place := self._revoked.get(key.get_base64()):
            raise HostKeyError(
                self._host.name,
                f"its host key is revoked: {hostname} shows {key.get_name()} {key.fingerprint}, see {place}",
                "somebody else may have that key: give the host a new one",
            )
        if self._mode == "accept-new":
            _append(self._files[0], line)
            return
        raise HostKeyError(
            self._host.name,
            f"its host key is not known: {hostname} shows {key.get_name()} {key.fingerprint}, "
            f"searched {', '.join(str(path) for path in self._files)}",
            f"compare the fingerprint on the host, then: echo '{line}' >> {self._files[0]}"
            " (or host_key_checking: accept-new)",
        )


class _Lines:
    """Lines of a file with their places in it: by each plain name, and those with patterns or hashed names."""

    def __init__(self) -> None:
        self._plain: dict[str, list[tuple[int, str]]] = {}
        self._others: list[tuple[int, str]] = []

    def add(self, at: int, line: str) -> None:
        names = line.partition(" ")[0].lower()
        if any(special in names for special in "*?!|"):
            self._others.append((at, line))
        else:
            for name in names.split(","):
                self._plain.setdefault(name, []).append((at, line))

    def keys_of(self, name: str) -> Iterator[tuple[int, paramiko.PKey]]:
        """Return the keys of a name, in their order. A broken line is ignored, as in OpenSSH."""
        others = (line for line in self._others if _is_among(name, line[1].partition(" ")[0]))
        for at, line in sorted([*self._plain.get(name.lower(), []), *others]):
            with suppress(paramiko.SSHException, InvalidHostKey):
                entry = HostKeyEntry.from_line(line)
                if entry is not None and entry.key is not None:
                    yield at, entry.key


class _Known(NamedTuple):
    """The lines of a file: `names type key`, and those marked `@revoked`. `@cert-authority` is not for us."""

    trusted: _Lines
    revoked: _Lines


def _known(host: Host, path: Path) -> _Known:
    """Paramiko's own reading of a file grows with its square: 1000 lines took 0.34 s of CPU for each connection."""
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise HostKeyError(host.name, f"known hosts file {path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise HostKeyError(host.name, f"known hosts file {path} {error.faults[0].problem}") from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, _modified: int, _size: int) -> _Known:
    lines = _Known(_Lines(), _Lines())
    for at, text in enumerate(_lines_of(path)):
        line = " ".join(text.split())
        if line.startswith("@revoked "):
            lines.revoked.add(at, line.partition(" ")[2])
        elif line and line[0] not in "#@":
            lines.trusted.add(at, line)
    return lines


def _lines_of(path: Path) -> list[str]:
    return read_bytes(path, LARGEST, pipes=False).decode(errors="replace").splitlines()


def _is_among(name: str, names: str) -> bool:
    """Return whether a name is one of those before a key: plain, a pattern, or hashed."""
    if names.startswith("|1|"):
        with suppress(ValueError, AssertionError):  # a salt that is none
            return paramiko.HostKeys.hash_host(name, names) == names
        return False
    patterns = names.lower().split(",")
    if any(pattern.startswith("!") and _fits(name, pattern[1:]) for pattern in patterns):
        return False
    return any(_fits(name, pattern) for pattern in patterns)


def _fits(name: str, pattern: str) -> bool:
    """Return whether a name fits a pattern, which has `*` and `?` only; brackets are those of `[address]:port`."""
    return fnmatch.fnmatchcase(name.lower(), pattern.replace("[", "[[]"))


def _append(path: Path, line: str) -> None:
    with _writing:
        make_private_directory(path.parent)
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            content = file.read()
            if line not in content.splitlines():
                file.write(("\n" if content and not content.endswith("\n") else "") + line + "\n")
