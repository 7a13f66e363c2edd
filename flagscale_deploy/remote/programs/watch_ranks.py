"""Watches the processes of a run on one host while its engines start.

main({deployment, host, run_id}) answers, until standard input ends, {"gone": [{pid, part, title}], "oom": text of
`oom.py`} within a second of the end of a process that plays a part (`ranks.py`), and once a second {"still": {script:
{"read": seconds, "used": seconds, "stopped": [title]}}, "ranks": {part: n}}: how long the processes of each engine here
have not read, and not used CPU time, and which of them are stopped or wait for a disk. An engine is known by the script
that began it; the script "" has those that Ray began. All processes of the host are read every other second (50 µs
each), the run's own twice a second.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from flagscale_deploy.remote.deployment import processes, record
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.engine.activity import Activity
from flagscale_deploy.remote.system import oom
from flagscale_deploy.remote.system.proc import Identity, Process, alive, scan
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.5
SAY_EVERY = 2
SCAN_EVERY = 4


def main(args: Dict[str, Any]) -> None:
    known = record.read(args["deployment"], args["host"]) or {}
    marker = "%s/%s" % (args["deployment"], args["run_id"])
    family = processes.Family((each.identity for each in processes.recorded(known)), processes.marked(marker))
    watched: Dict[Identity, Process] = {}
    parts: Dict[Identity, Process] = {}
    scripts = {each["pid"]: each["script"] for each in known.get("processes", []) if each.get("role") == "engine"}
    groups: Dict[str, Activity] = {}
    turn = 0
    while not lifeline_lost(POLL_SECONDS if turn else 0):
        if turn % SCAN_EVERY == 0:
            watched = {each.identity: each for each in family.among(scan())}
            parts.update((identity, each) for identity, each in watched.items() if ranks.part(each))
        say_gone(parts, known)
        if turn % SAY_EVERY == 0:
            say_still(groups, by_script(list(watched.values()), scripts), parts)
        turn += 1


def say_gone(parts: Dict[Identity, Process], known: Dict[str, Any]) -> None:
    """Say which of those that play a part have ended, and forget them."""
    gone = [parts.pop(each.identity) for each in list(parts.values()) if not alive(each)]
    if gone:
        told = [{"pid": each.pid, "part": ranks.part(each), "title": ranks.title(each)} for each in gone]
        say(gone=told, oom=oom.said(known))


def by_script(watched: List[Process], scripts: Dict[int, str]) -> Dict[str, List[Process]]:
    """The processes of engines by the script whose session or descendants they are; by "" those that Ray began."""
    parents = {each.pid: each for each in watched}
    found: Dict[str, List[Process]] = {}
    for process in watched:
        if ranks.of_engine(process):
            found.setdefault(_script(process, parents, scripts), []).append(process)
    return found


def _script(process: Process, parents: Dict[int, Process], scripts: Dict[int, str]) -> str:
    elder: Optional[Process] = process
    for _ in range(len(parents)):
        if elder is None:
            break
        if elder.pid in scripts or elder.sid in scripts:
            return scripts.get(elder.pid) or scripts[elder.sid]
        elder = parents.get(elder.ppid)
    return ""


def say_still(groups: Dict[str, Activity], found: Dict[str, List[Process]], parts: Dict[Identity, Process]) -> None:
    """Say for how long each engine's processes have been still."""
    still = {}
    for script, processes_ in found.items():
        activity = groups.setdefault(script, Activity())
        read, used = activity.look(processes_)
        stopped = [ranks.title(each) for each in processes_ if each.pid in activity.stopped]
        still[script] = {"read": read, "used": used, "stopped": stopped}
    say(still=still, ranks=ranks.count(parts.values()))
