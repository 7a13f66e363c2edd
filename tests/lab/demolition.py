"""Taking labs away, also those of keepers that were killed, and proving that nothing of them remains."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from tests.lab.network import links, remove_links
from tests.lab.slots import Slot, known_slots, lock
from tests.lab.state import HostState, LabState, is_first, lives_in, pid_namespace


def reap() -> list[Slot]:
    """Take away what labs without a keeper left behind; the slots that this freed. Call with `registry()` held."""
    dead = []
    for slot in known_slots():
        held = lock(slot)
        if held is not None:
            demolish(slot)
            os.close(held)
            dead.append(slot)
    return dead


def demolish(slot: Slot, patience: float = 30.0) -> None:
    """End the slot's hosts, remove its links and directory, and prove it. The caller holds the slot's lock.

    Raises OSError naming every process, link and mount that is still there, the processes after `patience` seconds.
    """
    state = LabState.of(slot)
    hosts = state.hosts if state else ()
    for host in hosts:
        host.power_off()
    deadline = time.monotonic() + patience
    while left_of(hosts) and time.monotonic() < deadline:
        time.sleep(0.005)
    remove_links(slot)
    left = [
        *(f"process {pid}" for pid in left_of(hosts)),
        *(f"link {name}" for name in links(slot)),
        *(f"mount {point}" for point in _mounts(slot)),
    ]
    if left:  # the directory stays: what is mounted in it must not be deleted with it
        raise OSError(f"{slot.bridge} was taken down and left: {', '.join(left)}")
    shutil.rmtree(slot.directory)


def left_of(hosts: Iterable[HostState]) -> list[int]:
    """Pids, as the machine counts, of the living processes of hosts.

    The kernel gives the number of a namespace that is gone to the next one, which may be of another lab: then its first
    process is not the host's.
    """
    own = {host.namespace: host.pid for host in hosts}
    living = [(pid, pid_namespace(pid) or 0) for pid in processes_in(own)]
    taken = {namespace for pid, namespace in living if is_first(pid) and own.get(namespace) != pid}
    return [pid for pid, namespace in living if namespace not in taken]


def processes_in(namespaces: Iterable[int]) -> list[int]:
    """Pids, as the machine counts, of the living processes in these pid namespaces (inodes)."""
    wanted = set(namespaces)
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if lives_in(pid, wanted)]


def _mounts(slot: Slot) -> list[str]:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if Path(point).is_relative_to(slot.directory)]
