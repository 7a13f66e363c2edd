"""Find the processes of a deployment among those of a host.

Ours are, by falling strength of evidence:

- a process that the record names: pid, start time and boot id agree;
- a process of our own user and pid namespace with our marker in `/proc/PID/environ`. Not a process of another user (his
  deployment may bear the same name), nor of a container (which shows among the processes of its host);
- everything in a session whose leader is ours: every member of a session descends from its leader;
- everything that descends from a process of ours.

The last two are there because programs that rename themselves overwrite their environment (`VLLM::EngineCore`,
`ray::DashboardAgent`). The launcher starts every script with setsid, so a deployment's sessions have leaders of ours. A
marked process in somebody else's session (an operator sourced a script, or exported the marker by accident) makes
nothing of that session ours: its leader lives and isn't. Where the leader has ended, members older than the oldest one
known to be ours stay foreign, for what is ours came after the marker, and those of other users: numbers of sessions are
used again. Never ours: the program that asks, its ancestors (the sshd session that runs it), its session as a whole,
pid 1, and zombies.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Callable, Collection, Dict, Iterable, List, NamedTuple, Optional, Set

from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.system.proc import Identity, Process
from flagscale_deploy.remote.system.proc import scan as scan

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record


class Recorded(NamedTuple):
    """A process that the record names: the leader of the session that a script was started in."""

    role: str
    pid: int
    start_ticks: int
    script: str = ""

    @property
    def identity(self) -> Identity:
        """Return pid and start time."""
        return self.pid, self.start_ticks


class Family:
    """Processes that belong together.

    It remembers those it has seen: once its parent has ended, an orphan no longer shows whose child it was. `recorded`
    are processes known from a record; `belongs` tells of a process by itself whether it is one of the family.
    """

    def __init__(self, recorded: Iterable[Identity], belongs: Callable[[Process], bool] = lambda _: False) -> None:
        self._members: Set[Identity] = set(recorded)
        self._sessions: Dict[int, int] = dict(self._members)
        self._belongs = belongs

    def among(self, processes: Iterable[Process], asking: Optional[int] = None) -> List[Process]:
        """Return the members of the family among all processes of the host, by pid, without `asking` (default: us)."""
        everyone = {process.pid: process for process in processes}
        me = os.getpid() if asking is None else asking
        spared = _ancestry(me, everyone)
        candidates = {pid: process for pid, process in everyone.items() if pid not in spared}
        own_session = everyone[me].sid if me in everyone else 0
        sessions = {sid: start for sid, start in self._sessions.items() if sid not in (0, own_session)}
        members = {p.pid for p in candidates.values() if p.identity in self._members or self._belongs(p)}
        while True:
            _add_sessions(sessions, members, everyone, own_session)
            more = {
                p.pid for p in candidates.values() if p.pid not in members and _related(p, members, sessions, everyone)
            }
            if not more:
                break
            members |= more
        self._members |= {everyone[pid].identity for pid in members}
        self._sessions.update(sessions)
        return [everyone[pid] for pid in sorted(members)]


def ours(processes: Iterable[Process], marker: str, named: Iterable[Recorded] = ()) -> List[Process]:
    """Return what is a deployment's among all processes of the host, at one look.

    They are found by marker, record, session and descent. `marker` is `<deployment>/` or, for one run,
    `<deployment>/<run_id>`.
    """
    return family(marker, named).among(processes)


def family(marker: str, named: Iterable[Recorded] = ()) -> Family:
    """Return what finds the processes that `ours` does, at several looks."""
    return Family((process.identity for process in named), marked(marker))


def of_scripts(content: Record, marker: str, scripts: Collection[str]) -> Family:
    """Return what finds the processes of some scripts of a run, whose marker is `<deployment>/<run_id>`.

    They are found by the record, and by both marks: a run's other scripts have the same marker.
    """
    of_run = marked(marker)
    named = [entry.identity for entry in recorded(content) if entry.script in scripts]
    return Family(named, lambda process: process.script in scripts and of_run(process))


def marked(marker: str) -> Callable[[Process], bool]:
    """Return a test whether a process of our own user carries the marker of a deployment, or of one run of it."""
    uid = os.getuid()
    deployment, _, run_id = marker.rpartition("/")

    def belongs(process: Process) -> bool:
        name, _, run = process.marker.rpartition("/")
        return bool(run) and name == deployment and run_id in ("", run) and process.uid == uid

    return belongs


def recorded(content: Record) -> List[Recorded]:
    """Return the processes of a record that may still run: none after a clean stop, or from an earlier boot.

    A record outlives its processes, and pids are used again: what is known to be gone is not looked for.
    """
    if content.get("stopped_at"):
        return []
    boot_id = record.boot_id()
    entries = (entry for entry in content.get("processes") or () if entry.get("boot_id") == boot_id)
    fields = (
        (str(entry.get("role")), entry.get("pid"), entry.get("start_ticks"), str(entry.get("script", "")))
        for entry in entries
    )
    return [
        Recorded(role, pid, ticks, script)
        for role, pid, ticks, script in fields
        if isinstance(pid, int) and isinstance(ticks, int)
    ]


def _ancestry(pid: int, everyone: Dict[int, Process]) -> Set[int]:
    ancestry = {1, pid}
    while pid in everyone and everyone[pid].ppid not in ancestry:
        pid = everyone[pid].ppid
        ancestry.add(pid)
    return ancestry


def _add_sessions(sessions: Dict[int, int], members: Set[int], everyone: Dict[int, Process], own_session: int) -> None:
    """Add to `sessions` (session id to the start time of its first member) those that `found` shows to be ours.

    Session 0 stands for every session whose leader lives outside our pid namespace: it tells nothing.
    """
    for pid in members:
        process = everyone[pid]
        leader = everyone.get(process.sid)
        if process.sid in (0, own_session) or (leader is not None and leader.pid not in members):
            continue
        start = process.start_ticks if leader is None else leader.start_ticks
        sessions[process.sid] = min(start, sessions.get(process.sid, start))


def _related(process: Process, members: Set[int], sessions: Dict[int, int], everyone: Dict[int, Process]) -> bool:
    """Return whether a process is in a session of ours or a child of ours.

    Both are older than it: one that isn't got its pid from the kernel after this one had read it.
    """
    if process.ppid in members and everyone[process.ppid].start_ticks <= process.start_ticks:
        return True
    # The number of a dead leader may be another user's session by now. What nobody may look into is root's, by /proc.
    belongs = process.sid in members if process.sid in everyone else process.uid in (0, os.getuid())
    return belongs and sessions.get(process.sid, sys.maxsize) <= process.start_ticks
