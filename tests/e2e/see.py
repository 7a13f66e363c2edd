"""What there is on a machine, as one line of JSON: processes, listening ports, files. Runs on the machine itself.

`see.py '{"files": [directories], "prune": [paths]}'`; the standard library alone. The tests compare two looks: what the
product left is whatever the second one shows and the first one doesn't, whatever the product thinks of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

MARKER = b"FLAGSCALE_DEPLOY_RUN="
LISTENING = "0A"


def main(asked: dict[str, Any]) -> None:
    table = {pid: stat for pid, stat in stats() if stat["state"] != "Z"}
    own = ancestry(os.getpid(), table)
    seen = {
        "processes": [[pid, stat["start"], command(pid), marker(pid)] for pid, stat in table.items() if pid not in own],
        "ports": sorted(set(listening())),
        "files": sorted(files(asked["files"], set(asked["prune"]))),
    }
    sys.stdout.write(json.dumps(seen) + "\n")


def stats() -> Iterator[tuple[int, dict[str, Any]]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            yield int(name), {"state": fields[0], "parent": int(fields[1]), "start": int(fields[19])}


def ancestry(pid: int, table: dict[int, dict[str, Any]]) -> set[int]:
    """Return a process and those it comes from, without the machine's first."""
    ancestors = set()
    while pid > 1 and pid in table:
        ancestors.add(pid)
        pid = table[pid]["parent"]
    return ancestors


def command(pid: int) -> str:
    return read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def marker(pid: int) -> str:
    variables = read(pid, "environ").split(b"\0")
    return next((variable[len(MARKER) :].decode() for variable in variables if variable.startswith(MARKER)), "")


def read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def listening() -> Iterator[int]:
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == LISTENING:
                    yield int(fields[1].rpartition(":")[2], 16)


def files(directories: Iterable[str], prune: set[str]) -> Iterator[str]:
    for directory in directories:
        for path, below, names in os.walk(directory):
            below[:] = [folder for folder in below if os.path.join(path, folder) not in prune]
            yield from (os.path.join(path, entry) for entry in (*below, *names))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
