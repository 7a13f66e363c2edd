"""List the processes of a host by /proc, and send a signal to exactly one of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import List, NamedTuple, Optional, Set, Tuple

from flagscale_deploy.remote.system import files

MARKER = "FLAGSCALE_DEPLOY_RUN"
"""The environment variable every process of a deployment is started with: `<deployment>/<run_id>`."""
SCRIPT = "FLAGSCALE_DEPLOY_SCRIPT"
"""Another one: the name of the script that started it."""


Identity = Tuple[int, int]
"""A pid and the start time of its process, in ticks since boot: together they never come again before a reboot."""

OWN_ENVIRONMENT, OTHER_ENVIRONMENT = 8 << 20, 64 << 10
"""How much is read of an environment. That of a new program has 6 MiB at most (execve(2)), with its arguments."""

KERNEL_THREAD = 0x00200000
"""PF_KTHREAD of the kernel's include/linux/sched.h: a flag that no program can have."""

EXEC_LOOKS, EXEC_SECONDS = 10, 0.001
"""How often and at what distance to look again at a process that executes another program just then."""


class Stat(NamedTuple):
    """What `/proc/PID/stat` says (proc(5)); `start_ticks` in clock ticks since boot."""

    name: str
    state: str
    ppid: int
    sid: int
    start_ticks: int
    ended: bool
    """A zombie; one whose other threads still run has not ended."""
    kernel: bool
    """A thread of the kernel: it has neither arguments nor an environment."""


class Process(NamedTuple):
    """A live process. `marker` is FLAGSCALE_DEPLOY_RUN of its environment, empty where that isn't readable.

    That of a setuid program is empty too: another user started it, and chose its environment. `script` is
    FLAGSCALE_DEPLOY_SCRIPT of the same, where there is a marker.
    """

    pid: int
    ppid: int
    sid: int
    start_ticks: int
    state: str
    uid: int
    command: str
    marker: str
    script: str = ""

    @property
    def identity(self) -> Identity:
        """Return pid and start time."""
        return self.pid, self.start_ticks


def scan() -> List[Process]:
    """Return every live process that can be seen, zombies left out. About 20 µs a process, less a kernel thread."""
    namespace = _namespace("self")
    processes = (_look(int(name), namespace) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in processes if process is not None]


def find(pid: int) -> Optional[Process]:
    """Return the live process with this pid, None where there is none."""
    return _look(pid, _namespace("self"))


def start_ticks(pid: int) -> Optional[int]:
    """Return the clock ticks between boot and the start of a process; None if it is gone."""
    try:
        return parse_stat(_read(pid, "stat")).start_ticks
    except OSError:
        return None


def age(ticks: int) -> float:
    """Return the seconds since a process began, by the clock ticks between boot and its start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def lives(pid: int, start_ticks: Optional[int]) -> bool:
    """Return whether this very process (not one that got its pid later) still runs."""
    try:
        stat = parse_stat(_read(pid, "stat"))
    except OSError:
        return False
    return not stat.ended and stat.start_ticks == start_ticks


def alive(process: Process) -> bool:
    """Return whether a process that was seen still runs."""
    return lives(*process.identity)


def send(process: Process, signum: int) -> str:
    """Signal this very process; return `sent`, `gone`, or `refused` (it belongs to another user).

    A pidfd names the process itself; without one (Python 3.8, Linux before 5.3, seccomp) microseconds remain between
    the look at its start time and the signal.
    """
    try:
        if sys.version_info >= (3, 9) and hasattr(os, "pidfd_open"):
            return _send_by_pidfd(process, signum)
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass
    try:
        if not alive(process):
            return "gone"
        os.kill(process.pid, signum)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        return "refused"
    return "sent"


def parse_stat(content: bytes) -> Stat:
    """Parse `/proc/PID/stat`, whose second field is a name that may hold blanks and parentheses."""
    head, _, tail = content.rpartition(b")")
    fields = tail.split()
    state = fields[0].decode()
    return Stat(
        name=head.partition(b"(")[2].decode(errors="replace"),
        state=state,
        ppid=int(fields[1]),
        sid=int(fields[3]),
        start_ticks=int(fields[19]),
        ended=state in "Xx" or (state == "Z" and int(fields[17]) <= 1),
        kernel=bool(int(fields[6]) & KERNEL_THREAD),
    )


def parse_marker(environ: bytes, name: str = MARKER) -> str:
    """Return the value of our marker in the content of `/proc/PID/environ`, or an empty string."""
    prefix = name.encode() + b"="
    values = (entry[len(prefix) :] for entry in environ.split(b"\0") if entry.startswith(prefix))
    return next(values, b"").decode(errors="replace")


def parse_command(cmdline: bytes, name: str) -> str:
    """Return a command line to show, at most 300 characters; that of a kernel thread is its `[name]`."""
    return cmdline.replace(b"\0", b" ").decode(errors="replace").strip()[:300] or f"[{name}]"


def _look(pid: int, namespace: str) -> Optional[Process]:
    try:
        stat = parse_stat(_read(pid, "stat"))
        if stat.ended:
            return None
        uid = os.stat(f"/proc/{pid}").st_uid
        cmdline = b"" if stat.kernel else _cmdline(pid, stat, looks=EXEC_LOOKS if uid == os.getuid() else 1)
    except OSError:
        return None
    command = parse_command(cmdline, stat.name)
    marks = ("", "") if stat.kernel else _marks(pid, uid, namespace)
    return Process(pid, stat.ppid, stat.sid, stat.start_ticks, stat.state, uid, command, *marks)


def _cmdline(pid: int, stat: Stat, looks: int) -> bytes:
    """Return a process's arguments.

    Both they and its environment are empty for a moment while it executes another program: that is waited for, since it
    would seem to be nobody's. Processes of other users, which may have emptied theirs, are looked at once.
    """
    for _ in range(looks):
        content = _read(pid, "cmdline")
        if content or stat.ppid == 0 or stat.state == "Z":
            break
        time.sleep(EXEC_SECONDS)
    return content


def _marks(pid: int, uid: int, namespace: str) -> Tuple[str, str]:
    """Return marker and script of a process."""
    try:
        environ = _read(pid, "environ", OWN_ENVIRONMENT if uid == os.getuid() else OTHER_ENVIRONMENT)
    except OSError:
        return "", ""
    marker = parse_marker(environ)
    if marker and _namespace(str(pid)) == namespace and _uids(pid) == {uid}:
        return marker, parse_marker(environ, SCRIPT)
    return "", ""


def _uids(pid: int) -> Set[int]:
    """Return the real, effective, saved and file system user of a process; none where it is gone."""
    try:
        status = _read(pid, "status")
    except OSError:
        return set()
    line = next((line for line in status.splitlines() if line.startswith(b"Uid:")), b"")
    return {int(uid) for uid in line.split()[1:]}


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _read(pid: int, name: str, size: int = 4096) -> bytes:
    """Read the beginning of a file: a process of another user can make its command line as long as it likes."""
    return files.read_start(f"/proc/{pid}/{name}", size)


def _send_by_pidfd(process: Process, signum: int) -> str:
    descriptor = os.pidfd_open(process.pid)
    try:
        if not alive(process):
            return "gone"
        signal.pidfd_send_signal(descriptor, signum)
        return "sent"
    finally:
        os.close(descriptor)
