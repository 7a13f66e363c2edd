"""Find the first cause of a failure in the logs of all hosts, on the hosts or on this disk."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

from flagscale_deploy.diagnosis import clocks
from flagscale_deploy.diagnosis.find import Diagnosis, diagnose
from flagscale_deploy.diagnosis.progress import Progress, Start
from flagscale_deploy.logs.read import LineSelection, ReadLimits, read_logs
from flagscale_deploy.logs.store import CUT_FILES
from flagscale_deploy.remote.logs.sparse import pieces
from flagscale_deploy.transport.fleet import Fleet

PLACES = ("logs", "ray", "scripts", "evidence")
"""The folders of one host's logs."""
NODE_IP = re.compile(r"(?:--node-ip-address=|Local node IP(?:\x1b\[\d+m)?: (?:\x1b\[\d+m)?)([0-9a-fA-F.:]+)")
"""The address by which Ray knows a host: in the script that starts Ray, or in what `ray start` logs."""
DIAGNOSED_LINES = 2000
DIAGNOSED_BYTES = 8 << 20
"""How much of the end of a file is read for a diagnosis."""
ENDS_BYTES, ENDS_SECONDS = 64 << 20, 120.0
"""How much is read of the ends of all logs of a host, and for how long."""


def diagnose_ends(fleet: Fleet, deployment: str) -> Diagnosis | None:
    """Find the root cause in the ends of the deployment's logs on the hosts; leave out hosts that can't be read.

    Logs of Ray's daemons are not read: what matters in them is in the engine's log as well.
    """
    ends: dict[tuple[str, str], deque[str]] = {}
    keeping = threading.Lock()

    def keep(host: str, file: str, lines: Sequence[str]) -> None:
        with keeping:
            if _may_show_cause(PurePosixPath(file)):
                ends.setdefault((host, PurePosixPath(file).name), deque(maxlen=DIAGNOSED_LINES)).extend(lines)

    selection = LineSelection(tail=DIAGNOSED_LINES, kinds=("engine", "script", "ray-worker"))
    limits = ReadLimits(timeout=ENDS_SECONDS, max_bytes=ENDS_BYTES)
    host_clocks = read_logs(fleet, deployment, keep, selection, limits=limits).clocks
    addresses = {
        address: host.name for host in fleet.hosts.values() for address in (host.address, host.node_ip) if address
    }
    for (host, file), lines in ends.items():
        if file in ("ray_head.log", "ray_worker.log"):
            addresses = {**dict(_addresses_in(lines, host)), **addresses}
    logs = ((host, file, lines) for (host, file), lines in sorted(ends.items()))
    return _diagnose(logs, addresses, {host: host_clocks.get(host) for host, _ in ends})


def loading_stages(fleet: Fleet, deployment: str) -> dict[tuple[str, str], Progress]:
    """Return how far each engine's start has come by its log, by host and name of its script without `.sh`."""
    starts: dict[tuple[str, str], Start] = {}
    keeping = threading.Lock()

    def keep(host: str, file: str, lines: Sequence[str]) -> None:
        with keeping:
            start = starts.setdefault((host, PurePosixPath(file).stem), Start())
            for line in lines:
                start.read(line)

    selection = LineSelection(tail=DIAGNOSED_LINES, kinds=("engine",), this_run=True)
    read_logs(fleet, deployment, keep, selection, limits=ReadLimits(timeout=ENDS_SECONDS, max_bytes=ENDS_BYTES))
    return {place: start.now for place, start in starts.items() if start.now is not None}


def diagnose_folder(folder: Path) -> Diagnosis | None:
    """Find the root cause in logs on this disk: collected ones (`<folder>/<host>/…`), a run's, a host's, or one file.

    Links in the folder are not followed. The hosts' clocks are read from `clocks.json` beside the hosts' folders.
    """
    if (folder / "plan.json").is_file() and (folder / "logs").is_dir() and not (folder / "logs").is_symlink():
        folder = folder / "logs"
    files = [folder] if folder.is_file() else sorted(filter(_is_plain_file, folder.rglob("*")))
    files = [path for path in files if path.name != clocks.FILE]
    alone = folder.is_file() or any(path.parent == folder or path.relative_to(folder).parts[0] in PLACES
                                    for path in files)  # fmt: skip
    hosts = {path: folder.name if alone else path.relative_to(folder).parts[0] for path in files}
    causes = [path for path in files if _may_show_cause(path)]
    host_clocks = clocks.read(folder.parent if alone else folder)
    logs = ((hosts[path], path.name, _end_of(path)) for path in causes)
    return _diagnose(logs, dict(_addresses(hosts)), {hosts[path]: host_clocks.get(hosts[path]) for path in causes})


def _diagnose(
    logs: Iterable[tuple[str, str, Iterable[str]]],
    addresses: Mapping[str, str],
    host_clocks: Mapping[str, clocks.Clock | None],
) -> Diagnosis | None:
    """Call `diagnose` with the hosts' clocks; note where one is unknown."""
    diagnosis = diagnose(logs, addresses=addresses, clocks=clocks.comparable(host_clocks))
    notes = diagnosis and filter(None, (diagnosis.note, clocks.unknown_clocks_note(host_clocks)))
    return diagnosis and replace(diagnosis, note="; ".join(notes or ()))


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _may_show_cause(path: PurePath) -> bool:
    """Return whether a file may show a cause: no script, nothing of earlier runs.

    What a supervisor keeps of a hang repeats the server's log. Ray's `event_*` files repeat other logs as JSON; its
    `debug_state*` files are statistics.
    """
    return (
        path.suffix not in (".sh", ".jsonl")
        and path.parent.parent.name != "evidence"
        and path.name != CUT_FILES.decode()
        and ".kept-" not in path.name
        and not path.name.startswith(("event_", "debug_state"))
        and not any(part.startswith("previous-session_") for part in path.parts)
        and ".previous." not in path.name
    )


def _addresses(hosts: Mapping[Path, str]) -> Iterator[tuple[str, str]]:
    """Yield the addresses by which Ray knows hosts, with the hosts, as Ray's scripts and their logs have them."""
    for path, host in hosts.items():
        if path.stem in ("ray_head", "ray_worker"):
            yield from _addresses_in(_end_of(path), host)


def _addresses_in(lines: Iterable[str], host: str) -> Iterator[tuple[str, str]]:
    for line in lines:
        if address := NODE_IP.search(line):
            yield address[1], host


def _end_of(path: Path) -> Iterator[str]:
    """Yield the lines at the end of a file. Holes are left out: a host sends them at no cost."""
    with path.open("rb") as file:
        size, rest = os.fstat(file.fileno()).st_size, b""
        for _, content in pieces(file.fileno(), max(0, size - DIAGNOSED_BYTES), size):
            *lines, rest = (rest + (content or b"")).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").rstrip()
        if rest:
            yield rest.decode(errors="replace").rstrip()
