"""Logs of all hosts: shown, followed, or brought to the operator's disk."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from flagscale_deploy.diagnosis.find import Diagnosis, diagnose
from flagscale_deploy.errors import HostError, RemoteError
from flagscale_deploy.folder import safe_name
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.program import Program

KINDS = ("engine", "script", "ray", "ray-worker")
PROBLEMS = ".errors.json"
COLLECT_SECONDS = 3600.0
FOREVER_SECONDS = 10 * 365 * 86400.0
PLACES = ("logs", "ray", "scripts")
"""What the logs of one host lie in."""
NODE_IP = re.compile(r"--node-ip-address=([0-9a-fA-F.:]+)")
DIAGNOSED_LINES = 2000
DIAGNOSED_BYTES = 8 << 20
"""How much of the end of a file is read for a diagnosis."""


@dataclass(frozen=True)
class Collected:
    """What came from a host: files (relative paths) with their sizes in bytes, and what is wrong with some of them."""

    host: str
    folder: Path
    files: tuple[tuple[str, int], ...]
    problems: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


Line = Callable[[str, str, str], None]
"""Takes host, file and one line."""


def collect_logs(
    fleet: Fleet, deployment: str, into: Path, hosts: Iterable[str] | None = None
) -> dict[str, Collected | HostError]:
    """Every log of a deployment into `<into>/<host>/`, all hosts at once."""

    def work(host: Host) -> Collected:
        return _collect(fleet, deployment, host, into / safe_name(host.name))

    return fleet.map(work, hosts)


def read_logs(
    fleet: Fleet, deployment: str, show: Line, *, tail: int | None, follow: bool, kinds: Sequence[str] | None
) -> dict[str, int | HostError]:
    """Hand over the last `tail` lines (None: all) of each file of these kinds, then new ones as they come.

    Returns how many files each host had. With `follow` it ends when the caller is interrupted, or all hosts are lost.
    """

    def work(host: Host) -> int:
        args = {"deployment": deployment, "host": host.name, "tail": tail, "follow": follow, "kinds": kinds}
        limit = FOREVER_SECONDS if follow else COLLECT_SECONDS
        files = set()
        connection = fleet.connection(host.name)
        with Program(connection, "follow", args, timeout=limit, cancelled=fleet.cancelled, bounded=False) as program:
            for message in program.messages():
                files.add(message["file"])
                for line in message["lines"]:
                    show(host.name, message["file"], line)
        return len(files)

    return fleet.gather({host.name: partial(work, host) for host in fleet.hosts.values()}, together=True)


def diagnose_ends(fleet: Fleet, deployment: str) -> Diagnosis | None:
    """The root cause in the ends of the deployment's logs as they are on the hosts; hosts that can't be read are left
    out. Ray's daemons are not asked: what matters of theirs stands in the engine's log as well."""
    ends: dict[tuple[str, str], list[str]] = {}
    keeping = threading.Lock()

    def keep(host: str, file: str, line: str) -> None:
        with keeping:
            if _is_evidence(PurePosixPath(file)):
                ends.setdefault((host, PurePosixPath(file).name), []).append(line)

    read_logs(fleet, deployment, keep, tail=DIAGNOSED_LINES, follow=False, kinds=("engine", "script", "ray-worker"))
    addresses = {at: host.name for host in fleet.hosts.values() for at in (host.address, host.node_ip) if at}
    logs = ((host, file, lines) for (host, file), lines in sorted(ends.items()))
    return diagnose(logs, addresses=addresses)


def diagnose_folder(folder: Path) -> Diagnosis | None:
    """The root cause in logs on this disk: as they were collected (`<folder>/<host>/…`), in the folder of a run, of a
    single host, or one file."""
    if (folder / "plan.json").is_file() and (folder / "logs").is_dir():
        folder = folder / "logs"
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    alone = folder.is_file() or any(path.parent == folder or path.relative_to(folder).parts[0] in PLACES
                                    for path in files)  # fmt: skip
    hosts = {path: folder.name if alone else path.relative_to(folder).parts[0] for path in files}
    return diagnose(
        ((hosts[path], path.name, _end_of(path)) for path in files if _is_evidence(path)),
        addresses=dict(_addresses(hosts)),
    )


def _is_evidence(path: PurePath) -> bool:
    """Not what was sent, not an earlier run's; Ray's `event_*` say in JSON what other files do in words."""
    return (
        path.suffix != ".sh"
        and path.name != PROBLEMS
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


def _collect(fleet: Fleet, deployment: str, host: Host, folder: Path) -> Collected:
    args = {"deployment": deployment, "host": host.name, "max_size": None}
    connection = fleet.connection(host.name)
    with Program(connection, "archive", args, timeout=COLLECT_SECONDS, cancelled=fleet.cancelled) as program:
        if not next(program.messages(), {}).get("archive"):
            raise RemoteError(host.name, "logs could not be read: the program that sends them ended early")
        try:
            files, problems = _unpack(program.raw(), folder)
        except (tarfile.TarError, EOFError) as error:
            raise RemoteError(host.name, f"logs came broken: {error}", "collect them again") from error
        except OSError as error:
            raise RemoteError(host.name, f"logs cannot be written to {folder}: {error.strerror}") from error
    return Collected(host.name, folder, tuple(files), tuple(problems))


def _unpack(chunks: Iterator[bytes], folder: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Regular files below `folder`, whatever names the other side sends; everything else is passed over."""
    files, problems = [], []
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tarfile.open(fileobj=io.BufferedReader(_Stream(chunks), 1 << 20), mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or name.is_absolute() or ".." in name.parts:
                problems.append(f"{member.name}: not a plain file below the folder; left out")
            elif member.name == PROBLEMS:
                problems += _problems(content.read())
            else:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                files.append((member.name, member.size))
    for _ in chunks:
        pass  # to the end of the stream, where the program's exit status is
    return files, problems


def _problems(content: bytes) -> list[str]:
    """What did not come whole, as `remote/archive.py` lists it."""
    found: Any = json.loads(content)
    return [f"{each['name']}: {each['why']}" for each in found]


class _Stream(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
