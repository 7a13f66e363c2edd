"""Keep what shows why a server hangs before it is ended: `evidence/<time>-<server>/` in the state directory.

All of it takes SECONDS at most, and a few MiB. What is there first is what costs nothing: the problem, the end of the
log, and what the kernel tells of each process. Then each process is asked where its Python code is, and the driver for
its GPUs, where the programs for that are installed.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Callable, Iterable, List, NamedTuple

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.system import files, subprocesses
from flagscale_deploy.remote.system.background import Background
from flagscale_deploy.remote.system.proc import Process

NAME = "evidence"
SECONDS, COMMAND_SECONDS, POLL_SECONDS = 10.0, 3.0, 0.2
KEPT = 5
"""As many folders of a deployment are kept on a host, the newest."""
LOG_BYTES, FILE_BYTES = 256 << 10, 64 << 10
MOST_PROCESSES = 64
KERNEL_FILES = ("status", "wchan", "stack")
"""Of /proc/PID (proc(5)); `stack` is for root alone."""


class Hung(NamedTuple):
    """A server that hangs: its name and script, and why that is known."""

    directory: Path
    name: str
    script: str
    problem: str


def keep_in_time(hung: Hung, processes: Iterable[Process], wanted: Callable[[], bool]) -> str:
    """Keep the evidence of these processes; return its folder's name below `evidence/`, "" if there is none.

    What takes too long is not waited for, and nothing once it is not `wanted` any more.
    """
    keeping = Background(keep, hung, processes)
    end = time.monotonic() + SECONDS + COMMAND_SECONDS
    while wanted() and time.monotonic() < end:
        try:
            return keeping.result(POLL_SECONDS)
        except TimeoutError:
            continue
        except (OSError, ValueError):
            break
    return ""


def keep(hung: Hung, processes: Iterable[Process]) -> str:
    """Keep the evidence of these processes, for SECONDS at most; return its folder's name. Raises OSError."""
    end = time.monotonic() + SECONDS
    name = "%s-%s" % (time.strftime("%Y%m%d-%H%M%S"), state.file_name(hung.name.replace("/", "-")))
    folder = hung.directory / NAME / name
    files.make_private_directory(folder, fresh=True)
    _remove_old(folder.parent)
    _write(folder / "problem.txt", hung.problem)
    _write(folder / "log.txt", _end_of(hung.directory / "logs" / (Path(hung.script).stem + ".log")))
    first = sorted(processes, key=lambda process: (ranks.part(process) is None, process.pid))[:MOST_PROCESSES]
    for process in first:
        _write(folder / ("process-%d.txt" % process.pid), _describe(process))
    _write(folder / "nvidia-smi.txt", _run(["nvidia-smi"], end))
    for process in first:
        _write(
            folder / ("py-spy-%d.txt" % process.pid), _run(["py-spy", "dump", "--nonblocking", "--pid"], end, process)
        )
    return name


def _describe(process: Process) -> str:
    """Return what the kernel tells of a process, without its environment."""
    parts = ["%d %s\n" % (process.pid, process.command)]
    for name in KERNEL_FILES:
        try:
            text = files.read_start("/proc/%d/%s" % (process.pid, name), FILE_BYTES).decode("utf-8", "replace")
        except OSError as error:
            text = str(error.strerror)
        parts.append("\n== %s\n%s\n" % (name, text.rstrip()))
    return "".join(parts)


def _end_of(log: Path) -> str:
    """Return the last lines of a log."""
    try:
        with files.open_regular(str(log)) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return str(error)


def _run(words: List[str], end: float, *processes: Process) -> str:
    """Return what a command prints, "" where it is not installed or no time is left."""
    seconds = min(COMMAND_SECONDS, end - time.monotonic())
    command = shutil.which(words[0])
    if command is None or seconds <= 0:
        return ""
    pids = [str(process.pid) for process in processes]
    try:
        ended = subprocesses.run([command, *words[1:], *pids], seconds)
    except OSError as error:
        return str(error)
    return ended.stdout + ended.stderr + ("\nit did not end within %g s" % seconds if ended.code is None else "")


def _write(path: Path, text: str) -> None:
    if text:
        files.write_atomically(path, text.encode("utf-8", "replace").decode())


def _remove_old(folder: Path) -> None:
    """Remove all but the newest folders; their names begin with their times."""
    for name in sorted(os.listdir(str(folder)))[:-KEPT]:
        shutil.rmtree(str(folder / name), ignore_errors=True)
