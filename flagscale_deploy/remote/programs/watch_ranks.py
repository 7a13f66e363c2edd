"""Watch the processes of a run on one host while its engines start, until standard input ends.

All processes of the host are read every other second (50 µs each), the run's own twice a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import processes, record
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.engine.activity import Activity
from flagscale_deploy.remote.system import oom
from flagscale_deploy.remote.system.proc import Identity, Process, alive, scan
from flagscale_deploy.remote.wire import input_ended

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.run import LostRank, Stillness, WatchRanksArguments, WatchRanksReply

send: Callable[[WatchRanksReply], None] = wire.send

POLL_SECONDS = 0.5
SAY_EVERY = 2
SCAN_EVERY = 4


def main(args: WatchRanksArguments) -> None:
    """Report once a second what the run's processes do, and within a second which have ended."""
    deployed = record.read(args["deployment"], args["host"]) or {}
    marker = "%s/%s" % (args["deployment"], args["run_id"])
    if "scripts" in args:
        family = processes.of_scripts(deployed, marker, args["scripts"])
    else:
        family = processes.family(marker, processes.recorded(deployed))
    watched: Dict[Identity, Process] = {}
    parts: Dict[Identity, Process] = {}
    scripts = {
        entry["pid"]: entry["script"] for entry in deployed.get("processes", []) if entry.get("role") == "engine"
    }
    groups: Dict[str, Activity] = {}
    turn = 0
    while not input_ended(POLL_SECONDS if turn else 0):
        if turn % SCAN_EVERY == 0:
            watched = {process.identity: process for process in family.among(scan())}
            parts.update((identity, process) for identity, process in watched.items() if ranks.part(process))
        send_gone(parts, deployed)
        if turn % SAY_EVERY == 0:
            send_still(groups, by_script(list(watched.values()), scripts), parts)
        turn += 1


def send_gone(parts: Dict[Identity, Process], deployed: Record) -> None:
    """Report which of those that play a part have ended, and forget them."""
    gone = [parts.pop(process.identity) for process in list(parts.values()) if not alive(process)]
    if gone:
        lost: List[LostRank] = [
            {"pid": process.pid, "part": ranks.part(process), "title": ranks.title(process)} for process in gone
        ]
        send({"gone": lost, "oom": oom.describe(deployed)})


def by_script(watched: List[Process], scripts: Dict[int, str]) -> Dict[str, List[Process]]:
    """Return the processes of engines by the script whose session or descendants they are; by "" those of Ray."""
    parents = {process.pid: process for process in watched}
    groups: Dict[str, List[Process]] = {}
    for process in watched:
        if ranks.of_engine(process):
            groups.setdefault(_script(process, parents, scripts), []).append(process)
    return groups


def _script(process: Process, parents: Dict[int, Process], scripts: Dict[int, str]) -> str:
    elder: Optional[Process] = process
    for _ in range(len(parents)):
        if elder is None:
            break
        if elder.pid in scripts or elder.sid in scripts:
            return scripts.get(elder.pid) or scripts[elder.sid]
        elder = parents.get(elder.ppid)
    return ""


def send_still(groups: Dict[str, Activity], engines: Dict[str, List[Process]], parts: Dict[Identity, Process]) -> None:
    """Report for how long each engine's processes have been still."""
    still: Dict[str, Stillness] = {}
    for script, processes_ in engines.items():
        activity = groups.setdefault(script, Activity())
        read, used = activity.look(processes_)
        stopped = [ranks.title(process) for process in processes_ if process.pid in activity.stopped]
        still[script] = {"read": read, "used": used, "stopped": stopped}
    send({"still": still, "ranks": ranks.count(parts.values())})
