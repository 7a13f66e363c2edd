"""Runs on a lab host, from the standard library alone: what a deployment has there, as one line of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
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


def main(asked: dict[str, Any]) -> None:
    table = dict(living())
    ours = family(table, asked["deployment"])
    ours |= {
        process["pid"]
        for process in asked["known"]
        if process["pid"] in table and table[process["pid"]].start == process["start"]
    }
    answer = {
        "processes": [{"pid": pid, "start": table[pid].start, "command": table[pid].command} for pid in sorted(ours)],
        "ports": sorted({port for pid in ours for port in listening(pid)}),
        "directories": sorted(directories(asked["deployment"])),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


def living() -> Iterator[tuple[int, Seen]]:
    """Every process but zombies and this one."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        directory = Path("/proc", name)
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


def listening(pid: int) -> Iterator[int]:
    """TCP ports that a process listens on."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            held.add(os.readlink(descriptor))
        except OSError:
            continue
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in held:
                yield int(fields[1].rpartition(":")[2], 16)


def directories(deployment: str) -> Iterator[str]:
    """State of the deployment, the state root if it is empty, and Ray's temp directories whoever made them."""
    root = Path.home() / ".flagscale-deploy"
    state = root / quote(deployment, safe="")
    if state.exists():
        yield str(state)
    elif root.exists() and not any(root.iterdir()):
        yield str(root)
    yield from map(str, Path("/tmp").glob("fsd-*"))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
