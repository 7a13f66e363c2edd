"""What a deployment has on a host: read in the files of the host, which `root` leads to; "/" is this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

MARKER = b"FLAGSCALE_DEPLOY_RUN="
LISTEN = "0A"


class Seen(NamedTuple):
    """A process as /proc shows it."""

    parent: int
    session: int
    start: int
    command: str
    environment: tuple[bytes, ...]


def living(root: str = "/") -> Iterator[tuple[int, Seen]]:
    """Every process but zombies and this one, by the pid that the host knows it by."""
    for name in os.listdir(f"{root}/proc"):
        if not name.isdigit() or (root == "/" and int(name) == os.getpid()):
            continue
        directory = Path(root, "proc", name)
        try:
            short, _, rest = (directory / "stat").read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            environment = tuple((directory / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(name), Seen(int(fields[1]), int(fields[3]), int(fields[19]), command or short, environment)


def family(table: dict[int, Seen], deployment: str) -> set[int]:
    """Pids of the marked, of those who share a session with them, and of all that descend from either."""
    marker = MARKER + deployment.encode() + b"/"
    ours = {pid for pid, seen in table.items() if any(variable.startswith(marker) for variable in seen.environment)}
    while True:
        # Session 0 is led by a process outside the host: its console.
        sessions = {table[pid].session for pid in ours} - {0}
        more = {pid for pid, seen in table.items() if seen.session in sessions or seen.parent in ours} - ours
        if not more:
            return ours
        ours |= more


def listening(root: str, pid: int) -> Iterator[int]:
    """TCP ports that a process listens on."""
    held = set()
    for descriptor in Path(f"{root}/proc/{pid}/fd").glob("*"):
        try:
            held.add(os.readlink(descriptor))
        except OSError:
            continue
    for table in ("tcp", "tcp6"):
        for line in Path(f"{root}/proc/1/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in held:
                yield int(fields[1].rpartition(":")[2], 16)


def directories(root: str, home: str, deployment: str) -> Iterator[str]:
    """State of the deployment, the state root if it is empty, and Ray's temp directories whoever made them."""
    states = Path(f"{root}{home}/.flagscale-deploy")
    state = states / quote(deployment, safe="")
    kept = [state] if state.exists() else [states] if states.exists() and not any(states.iterdir()) else []
    yield from (str(path).removeprefix(root) for path in (*kept, *Path(f"{root}/tmp").glob("fsd-*")))
