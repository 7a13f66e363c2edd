"""Watches the processes of a run on one host while its engines start.

main({deployment, host, run_id}) answers, until standard input ends, {"gone": [{pid, part, title}]} within a second of
the end of a process that plays a part (`ranks.py`), and once a second {"still": seconds, "ranks": {part: n},
"stopped": [title]}: how long the engine's processes here neither used CPU time nor read, and which of them are stopped
or wait for a disk. All processes of the host are read every other second (50 µs each), the run's own twice a second.
"""

from __future__ import annotations

from typing import Any, Dict, List

from flagscale_deploy.remote import processes, ranks, record
from flagscale_deploy.remote.activity import Activity
from flagscale_deploy.remote.proc import Identity, Process, alive, scan
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
    activity = Activity()
    turn = 0
    while not lifeline_lost(POLL_SECONDS if turn else 0):
        if turn % SCAN_EVERY == 0:
            watched = {each.identity: each for each in family.among(scan())}
            parts.update((identity, each) for identity, each in watched.items() if ranks.part(each))
        say_gone(parts)
        if turn % SAY_EVERY == 0:
            say_still(activity, [each for each in watched.values() if ranks.of_engine(each)], parts)
        turn += 1


def say_gone(parts: Dict[Identity, Process]) -> None:
    """Say which of those that play a part have ended, and forget them."""
    gone = [parts.pop(each.identity) for each in list(parts.values()) if not alive(each)]
    if gone:
        say(gone=[{"pid": each.pid, "part": ranks.part(each), "title": ranks.title(each)} for each in gone])


def say_still(activity: Activity, engine: List[Process], parts: Dict[Identity, Process]) -> None:
    """Say for how long nothing has moved."""
    still = activity.look(engine)
    stopped = [ranks.title(each) for each in engine if each.pid in activity.stopped]
    say(still=still, ranks=ranks.count(parts.values()), stopped=stopped)
