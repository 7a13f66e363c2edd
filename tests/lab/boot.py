"""Booting one host: the files it starts from, its first process, its cable, its sshd."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab import gpus
from tests.lab.network import plug_in
from tests.lab.slots import Slot
from tests.lab.state import HostState, pid_namespace

HERE = Path(__file__).parent
HOME = Path(pwd.getpwuid(0).pw_dir)
PRIVATE = (HOME, Path("/tmp"), Path("/run"), Path("/dev/shm"))
"""Where hosts have something of their own; directories anywhere else are the machine's and visible as they are."""
BOOT_SECONDS = 60.0


def make_keys(slot: Slot, hosts: int) -> None:
    """Return the operator's key, and a host key for each host."""
    for path in [slot.directory / "key", *(room(slot, index) / "host_key" for index in range(hosts))]:
        path.parent.mkdir(exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", path], check=True)


def host_key(slot: Slot, index: int) -> str:
    """Return a host's line for known_hosts."""
    kind, key, _ = (room(slot, index) / "host_key.pub").read_text().split()
    return f"{slot.address(index)} {kind} {key}\n"


def furnish(slot: Slot, index: int, gpu_count: int) -> None:
    """Write the files that `host_init.sh` puts in place."""
    host = room(slot, index)
    for name, mode in (("tmp", 0o1777), ("home", 0o700), ("home/.ssh", 0o700), ("sbin", 0o755), ("borrowed", 0o700)):
        (host / name).mkdir()
        (host / name).chmod(mode)
    shutil.copy(HERE / "sshd_config", slot.directory)
    shutil.copy(slot.directory / "key.pub", host / "home/.ssh/authorized_keys")
    (host / "hosts").write_text(f"127.0.0.1 localhost\n{slot.address(index)} {host.name}\n")
    # Nobody listens on the host's loopback, so every query is refused at once. A resolver that never answers costs
    # `ray start` 10 s a query.
    (host / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    gpus.install(host / "sbin", gpu_count)


def hidden(mounts: Sequence[str]) -> list[str]:
    """Return the directories that a host would not see, parents first."""
    wanted = {str(Path(os.path.abspath(mount))) for mount in mounts}
    return sorted(directory for directory in wanted if any(Path(directory).is_relative_to(place) for place in PRIVATE))


def start(slot: Slot, index: int, mounts: Sequence[str]) -> subprocess.Popen[str]:
    """Return a host's first process in namespaces of its own. It dies with the keeper."""
    host = room(slot, index)
    namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL"]
    init: list[str | Path] = [HERE / "host_init.sh", host, host.name, slot.address(index), slot.gateway, HOME]
    with (host / "console.log").open("w") as console:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "bash", *init, *mounts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=console,
            text=True,
        )


def connect(slot: Slot, index: int, process: subprocess.Popen[str]) -> HostState:
    """Plug the cable in and let the host boot."""
    assert process.stdin is not None
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise OSError(console(slot, index, "ended before its network was there"))
    pid = int(line)
    plug_in(slot, index, pid)
    process.stdin.write("go\n")
    process.stdin.close()
    namespace = pid_namespace(pid)
    if namespace is None:
        raise OSError(console(slot, index, "ended while its cable was plugged in"))
    return HostState(room(slot, index).name, slot.address(index), pid, namespace)


def wait_for_sshd(slot: Slot, index: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            socket.create_connection((slot.address(index), 22), timeout=1.0).close()
            return
        except OSError:
            if process.poll() is not None:
                raise OSError(console(slot, index, "ended while booting")) from None
            if time.monotonic() > deadline:
                raise OSError(console(slot, index, f"has no sshd after {BOOT_SECONDS} s")) from None
        time.sleep(0.005)


def console(slot: Slot, index: int, problem: str) -> str:
    """Return what went wrong with a host, and what it printed."""
    return f"{room(slot, index).name} {problem}; it said:\n{(room(slot, index) / 'console.log').read_text()}"


def room(slot: Slot, index: int) -> Path:
    """Return a host's directory on the machine; its name is the host's."""
    return slot.directory / f"node{index + 1}"
