"""The process that a lab lives in: `python -m tests.lab.keeper '{"hosts": 2, "gpus": 1, "mounts": [], "owner": 1234}'`.

It claims a slot, brings the hosts up, answers with one line (the `LabState`), and waits: for SIGTERM, or for the end of
its owner, however that ends (a pidfd says so even after kill -9). Then it takes everything away. Should the keeper
itself be killed, its hosts die with it, and the next keeper on the machine reaps bridge and directory.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.lab.boot import connect, furnish, hidden, host_key, make_keys, start, wait_for_sshd
from tests.lab.demolition import demolish, reap
from tests.lab.network import make_bridge, remove_links
from tests.lab.slots import SLOTS, STATE, Slot, known_slots, lock, registry
from tests.lab.state import LabState


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
    """Return the first free slot and the descriptor that holds its lock."""
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
    """Whether the machine has a network of its own inside the slot's; a wider one, such as 10/8, gives way to ours."""
    asked = ["ip", "-4", "route", "show", "root", slot.network]
    return bool(subprocess.run(asked, capture_output=True, check=True).stdout)


def bring_up(slot: Slot, wish: Wish, hosts: list[subprocess.Popen[str]]) -> LabState:
    """Start all hosts at the same time; each process is in `hosts` as soon as it exists, so that it can be ended."""
    make_keys(slot, wish.hosts)
    make_bridge(slot)
    for index in range(wish.hosts):
        furnish(slot, index, wish.gpus)
        hosts.append(start(slot, index, hidden(wish.mounts)))
    states = [connect(slot, index, process) for index, process in enumerate(hosts)]
    state = LabState(slot, os.getpid(), wish.owner, tuple(states))
    host_keys = (host_key(slot, index) for index in range(wish.hosts))
    (slot.directory / "known_hosts").write_text("".join(host_keys))
    (slot.directory / STATE).write_text(state.dumps())
    for index, process in enumerate(hosts):
        wait_for_sshd(slot, index, process)
    return state


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
