"""Whether a host is who it says: known_hosts, and what to do about a key that is not in it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import paramiko

from flagscale_deploy.errors import HostKeyError
from flagscale_deploy.inventory.model import Host, HostKeyChecking

SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts"

_FROM_SSH_CONFIG: Mapping[str, HostKeyChecking] = {
    "yes": "strict", "ask": "strict", "accept-new": "accept-new", "no": "off", "off": "off",
}  # fmt: skip
_writing = threading.Lock()


def checking(host: Host, ssh_config: Mapping[str, object]) -> HostKeyChecking:
    """The inventory's choice, else StrictHostKeyChecking of `~/.ssh/config`, else strict."""
    configured = str(ssh_config.get("stricthostkeychecking", "yes")).lower()
    return host.host_key_checking or _FROM_SSH_CONFIG.get(configured, "strict")


def known_hosts_files(host: Host, ssh_config: Mapping[str, object]) -> list[Path]:
    """The files with known keys; the first one is where accept-new adds."""
    chosen = host.known_hosts or cast(str, ssh_config.get("userknownhostsfile", USER_KNOWN_HOSTS))
    return [Path(each).expanduser() for each in (*chosen.split(), SYSTEM_KNOWN_HOSTS)]


def install(client: paramiko.SSHClient, host: Host, ssh_config: Mapping[str, object]) -> None:
    """Make a client verify keys as `host` wants it. Raises HostKeyError for a known_hosts file that can't be read."""
    files = known_hosts_files(host, ssh_config)
    mode = checking(host, ssh_config)
    if mode != "off":
        for path in files:
            if path.is_file():
                _load(client, host, path)
    client.set_missing_host_key_policy(_Policy(host, mode, files))


def changed(host: Host, error: paramiko.BadHostKeyException, files: Sequence[Path]) -> HostKeyError:
    """The error for a key that differs from the known one."""
    return HostKeyError(
        host.name,
        f"its host key changed: it shows {error.key.get_name()} {error.key.fingerprint}, "
        f"known_hosts has {error.expected_key.get_name()} {error.expected_key.fingerprint}",
        f"if the host was reinstalled: ssh-keygen -f {files[0]} -R {error.hostname}; otherwise somebody is in between",
    )


class _Policy(paramiko.MissingHostKeyPolicy):
    """Paramiko asks it about keys that no file knows."""

    def __init__(self, host: Host, mode: HostKeyChecking, files: Sequence[Path]) -> None:
        self._host, self._mode, self._files = host, mode, files

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        line = f"{hostname} {key.get_name()} {key.get_base64()}"
        if self._mode == "off":
            return
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


def _load(client: paramiko.SSHClient, host: Host, path: Path) -> None:
    try:
        client.load_system_host_keys(str(path))
    except (OSError, paramiko.SSHException) as error:
        raise HostKeyError(host.name, f"known hosts file {path} cannot be read: {error}") from error


def _append(path: Path, line: str) -> None:
    with _writing:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            if line not in file.read().splitlines():
                file.write(line + "\n")
