"""The process that a lab lives in: `python -m tests.lab.keeper '{"hosts": 2, "gpus": 1, "mounts": [], "owner": 1234}'`.

It claims a slot, brings the hosts up, answers with one line (the `LabState`), and waits: for SIGTERM, or for the end of
its owner, however that ends (a pidfd says so even after kill -9). Then it takes everything away. Should the keeper
itself be killed, its hosts die with it, and the next keeper on the machine reaps bridge and directory.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab import gpus
from tests.lab.demolition import demolish, reap
from tests.lab.network import make_bridge, plug_in, remove_links
from tests.lab.slots import SLOTS, STATE, Slot, known_slots, lock, registry
from tests.lab.state import HostState, LabState, pid_namespace

HERE = Path(__file__).parent
HOME = Path(pwd.getpwuid(0).pw_dir)
PRIVATE = (HOME, Path("/tmp"), Path("/run"), Path("/dev/shm"))
"""Where hosts have something of their own; directories anywhere else are the machine's and visible as they are."""
BOOT_SECONDS = 15.0


@dataclass(frozen=True)
class Wish:
    """What is asked for. `owner` is the pid to live and die with; None lives until SIGTERM."""

    hosts: int
    gpus: int
    mounts: Sequence[str]
    owner: int | None


def main(wish: Wish) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    slot, held = claim()
    hosts: list[subprocess.Popen[str]] = []
    try:
        state = bring_up(slot, wish, hosts)
        sys.stdout.write(state.dumps() + "\n")
        sys.stdout.close()
        wait_for_end(wish.owner)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for host in hosts:
            host.kill()
            host.wait()
        with registry():
            demolish(slot)
            os.close(held)


def claim() -> tuple[Slot, int]:
    """The first free slot and the descriptor that holds its lock."""
    with registry():
        with suppress(OSError):  # what cannot be taken away keeps its slot, and nobody from another
            reap()
        taken = set(known_slots())
        for slot in map(Slot, range(SLOTS)):
            if slot not in taken:
                remove_links(slot)
                if not is_routed(slot) and (held := lock(slot)) is not None:
                    return slot, held
    raise OSError(f"all {SLOTS} slots are taken: see `python -m tests.lab list`")


def is_routed(slot: Slot) -> bool:
    """Whether the machine already has a network of its own at the slot's addresses."""
    found = subprocess.run(["ip", "-4", "route", "show", "match", slot.gateway], capture_output=True, text=True)
    return any(not line.startswith("default") for line in found.stdout.splitlines())


def bring_up(slot: Slot, wish: Wish, hosts: list[subprocess.Popen[str]]) -> LabState:
    """Start all hosts at the same time; each process is in `hosts` as soon as it exists, so that it can be ended."""
    make_keys(slot, wish.hosts)
    make_bridge(slot)
    for index in range(wish.hosts):
        furnish(slot, index, wish.gpus)
        hosts.append(start(slot, index, hidden(wish.mounts)))
    states = [connect(slot, index, process) for index, process in enumerate(hosts)]
    state = LabState(slot, os.getpid(), wish.owner, tuple(states))
    known = (host_key(slot, index) for index in range(wish.hosts))
    (slot.directory / "known_hosts").write_text("".join(known))
    (slot.directory / STATE).write_text(state.dumps())
    for index, process in enumerate(hosts):
        wait_for_sshd(slot, index, process)
    return state


def make_keys(slot: Slot, hosts: int) -> None:
    """The operator's key, and a host key for each host."""
    for path in [slot.directory / "key", *(room(slot, index) / "host_key" for index in range(hosts))]:
        path.parent.mkdir(exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", path], check=True)


def host_key(slot: Slot, index: int) -> str:
    """A host's line for known_hosts."""
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
    """The directories that a host would not see, parents first."""
    wanted = {str(Path(os.path.abspath(each))) for each in mounts}
    return sorted(each for each in wanted if any(Path(each).is_relative_to(place) for place in PRIVATE))


def start(slot: Slot, index: int, mounts: Sequence[str]) -> subprocess.Popen[str]:
    """A host's first process in namespaces of its own. It dies with the keeper."""
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
    """What went wrong with a host, and what it printed."""
    return f"{room(slot, index).name} {problem}; it said:\n{(room(slot, index) / 'console.log').read_text()}"


def room(slot: Slot, index: int) -> Path:
    """A host's directory on the machine; its name is the host's."""
    return slot.directory / f"node{index + 1}"


def wait_for_end(owner: int | None) -> None:
    """Return when the owner's process has ended; SIGTERM ends the wait through SystemExit."""
    if owner is None:
        while True:
            signal.pause()
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])


if __name__ == "__main__":
    main(Wish(**json.loads(sys.argv[1])))
