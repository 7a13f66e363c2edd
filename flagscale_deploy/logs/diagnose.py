"""The first cause in the logs of all hosts, as they are there or on this disk."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

from flagscale_deploy.diagnosis import clocks
from flagscale_deploy.diagnosis.find import Diagnosis, diagnose
from flagscale_deploy.logs.read import read_logs
from flagscale_deploy.logs.store import CUT_FILES
from flagscale_deploy.transport.fleet import Fleet

PLACES = ("logs", "ray", "scripts")
"""What the logs of one host lie in."""
NODE_IP = re.compile(r"--node-ip-address=([0-9a-fA-F.:]+)")
DIAGNOSED_LINES = 2000
DIAGNOSED_BYTES = 8 << 20
"""How much of the end of a file is read for a diagnosis."""
ENDS_BYTES, ENDS_SECONDS = 64 << 20, 120.0
"""How much is read of the ends of a host's logs together, and for how long."""


def diagnose_ends(fleet: Fleet, deployment: str) -> Diagnosis | None:
    """The root cause in the ends of the deployment's logs as they are on the hosts; hosts that can't be read are left
    out. Ray's daemons are not asked: what matters of theirs stands in the engine's log as well."""
    ends: dict[tuple[str, str], deque[str]] = {}
    keeping = threading.Lock()

    def keep(host: str, file: str, lines: Sequence[str]) -> None:
        with keeping:
            if _is_evidence(PurePosixPath(file)):
                ends.setdefault((host, PurePosixPath(file).name), deque(maxlen=DIAGNOSED_LINES)).extend(lines)

    told: dict[str, clocks.Clock] = {}
    kinds = ("engine", "script", "ray-worker")
    read_logs(
        fleet, deployment, keep, tail=DIAGNOSED_LINES, follow=False, kinds=kinds,
        timeout=ENDS_SECONDS, max_bytes=ENDS_BYTES, clocks=told,
    )  # fmt: skip
    addresses = {at: host.name for host in fleet.hosts.values() for at in (host.address, host.node_ip) if at}
    logs = ((host, file, lines) for (host, file), lines in sorted(ends.items()))
    return _diagnose(logs, addresses, {host: told.get(host) for host, _ in ends})


def diagnose_folder(folder: Path) -> Diagnosis | None:
    """The root cause in logs on this disk: as they were collected (`<folder>/<host>/…`), in the folder of a run, of a
    single host, or one file. Hosts' clocks are those of the `clocks.json` beside their folders."""
    if (folder / "plan.json").is_file() and (folder / "logs").is_dir():
        folder = folder / "logs"
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if path.name != clocks.FILE]
    alone = folder.is_file() or any(path.parent == folder or path.relative_to(folder).parts[0] in PLACES
                                    for path in files)  # fmt: skip
    hosts = {path: folder.name if alone else path.relative_to(folder).parts[0] for path in files}
    evidence = [path for path in files if _is_evidence(path)]
    noted = clocks.read(folder.parent if alone else folder)
    logs = ((hosts[path], path.name, _end_of(path)) for path in evidence)
    return _diagnose(logs, dict(_addresses(hosts)), {hosts[path]: noted.get(hosts[path]) for path in evidence})


def _diagnose(
    logs: Iterable[tuple[str, str, Iterable[str]]],
    addresses: Mapping[str, str],
    known: Mapping[str, clocks.Clock | None],
) -> Diagnosis | None:
    """`diagnose` by the clocks of the hosts, with what is to be said where one is not known."""
    found = diagnose(logs, addresses=addresses, clocks=clocks.compared(known))
    return found and replace(found, note=clocks.doubt(known))


def _is_evidence(path: PurePath) -> bool:
    """Not what was sent, not an earlier run's; Ray's `event_*` say in JSON what other files do in words."""
    return (
        path.suffix != ".sh"
        and path.name != CUT_FILES.decode()
        and ".kept-" not in path.name
        and not path.name.startswith("event_")
        and not any(part.startswith("previous-session_") for part in path.parts)
        and ".previous." not in path.name
    )


def _addresses(hosts: Mapping[Path, str]) -> Iterator[tuple[str, str]]:
    """Hosts by the address that Ray knows them by: the scripts that came with the logs tell it."""
    for path, host in hosts.items():
        if path.name in ("ray_head.sh", "ray_worker.sh"):
            for line in _end_of(path):
                if found := NODE_IP.search(line):
                    yield found[1], host


def _end_of(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - DIAGNOSED_BYTES))
        for line in file:
            yield line.decode(errors="replace").rstrip()
