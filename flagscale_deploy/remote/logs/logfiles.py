"""List the log files of a deployment on this host.

`name` is the relative path that a file has among those collected; `kind` is one of

- `engine`: what `vllm serve`, router, gate or a program of the user's own print, and what that keeps in its log folder;
- `script`: what the scripts that start Ray print, the scripts themselves (`scripts/…`), and what restarts leave
  (`evidence/…`, `history.jsonl`);
- `ray`: Ray's own daemons (raylet.*, gcs_server.*, dashboard.*, …), of every session (`previous-session_…` is one of
  an earlier run);
- `ray-worker`: `worker-<worker id>-<job id>-<pid>.out|err`, what an actor (a vLLM worker) prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Callable, Iterator, List, NamedTuple, Set

from flagscale_deploy.remote.deployment import ray_temp, record, state

WORKER = re.compile(r"worker-[0-9a-f]+-[0-9a-f]+-\d+\.(out|err)(\.\d+)?")
ENGINE = re.compile(r"(vllm_serve|program|engine|router|gate)[^/]*\.log([.-][^/]*)?")

BESIDE = ("scripts/", "evidence/", "history.jsonl")
"""Beginnings of the names of files that are collected, but whose lines are no log: nobody follows them."""
SLACK_SECONDS = 1.0
"""A file's time may be behind the clock that a run's beginning was read from."""


class LogFile(NamedTuple):
    """A log file; `size` in bytes, `mtime` in Unix seconds."""

    path: str
    name: str
    kind: str
    size: int
    mtime: float


def listing(deployment: str, host: str) -> List[LogFile]:
    """Return every log file there is, also of a deployment whose record is lost. Links are passed over."""
    deployed = record.read(deployment, host) or {}
    directory = str(state.directory(deployment, host))
    engines = {entry.get("log") for entry in deployed.get("processes") or () if entry.get("role") in record.SERVERS}
    files = [
        file._replace(kind="engine") if file.path in engines or _is_engines(file.name) else file
        for file in _walk(os.path.join(directory, "logs"), "logs", "script")
    ]
    for name in ("scripts", "evidence"):
        files += _walk(os.path.join(directory, name), name, "script")
    files += _file(os.path.join(directory, "history.jsonl"), "history.jsonl", "script")
    used: Set[str] = set()
    for temp_dir in ray_temp.directories(deployment, host, deployed):
        for session in ray_temp.sessions(temp_dir):
            name = os.path.basename(session)
            name = name if name not in used else f"{name}-{os.path.basename(temp_dir)}"
            used.add(name)
            if _is_over(session, deployed.get("started_at", 0.0)):
                name = f"previous-{name}"
            files += map(_of_ray, _walk(os.path.join(session, "logs"), f"ray/{name}", "ray"))
    return files


def this_run(deployment: str, host: str) -> Callable[[LogFile], bool]:
    """Return what tells whether a log file is the recorded run's, and no earlier one's.

    An earlier one's are kept under other names, or nothing was written to them since the run began.
    """
    began = (record.read(deployment, host) or {}).get("started_at", 0.0) - SLACK_SECONDS

    def is_its(file: LogFile) -> bool:
        earlier = file.name.endswith(".previous.log") or file.name.startswith("ray/previous-")
        return not earlier and file.mtime >= began

    return is_its


def is_rotation(name: str, of: str) -> bool:
    """Return whether a name is what rotation makes of another: `e.log.1`, `e.log-20261124`, `e-1.log` of `e.log`."""
    stem, extension = os.path.splitext(of)
    behind = name[len(of) :] if name.startswith(of) else ""
    between = name[len(stem) :] if extension and name.startswith(stem) and name.endswith(extension) else ""
    return name != of and (behind[:1] in (".", "-", "_") if behind else between[:1] in (".", "-", "_"))


def _is_engines(name: str) -> bool:
    return ENGINE.fullmatch(os.path.basename(name)) is not None or name.startswith("logs/app/")


def _is_over(session: str, started_at: float) -> bool:
    """Return whether nothing was made in a session since the recorded run began: it is an earlier run's."""
    return os.stat(session).st_mtime < started_at


def _of_ray(file: LogFile) -> LogFile:
    return file._replace(kind="ray-worker") if WORKER.fullmatch(os.path.basename(file.name)) else file


def _walk(directory: str, name: str, kind: str) -> Iterator[LogFile]:
    for path, directories, files in os.walk(directory):
        directories.sort()
        for file in sorted(files):
            full = os.path.join(path, file)
            yield from _file(full, os.path.join(name, os.path.relpath(full, directory)), kind)


def _file(path: str, name: str, kind: str) -> Iterator[LogFile]:
    """Yield a file, unless it is none, or was rotated away since it was listed."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            yield LogFile(path, name, kind, status.st_size, status.st_mtime)
