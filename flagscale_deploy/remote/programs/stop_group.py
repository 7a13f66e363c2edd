"""End what one group of a deployment runs on this host, or its Ray node, and prove that it is gone; all else goes on.

Before it looks for anything it forbids the group's scripts (`deployment/restart_permits.py`): what dies now stays dead
until the group is started again. It goes on when the operator has gone, and may be run again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, List

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import processes, record, restart_permits, shared_memory, terminate
from flagscale_deploy.remote.engine import ranks

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.change import StopGroupArguments, StopGroupReply
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.system.proc import Process

send: Callable[[StopGroupReply], None] = wire.send

RAY = frozenset(["ray_head.sh", "ray_worker.sh"])
"""The scripts of Ray's nodes, whose daemons do not all end of SIGTERM."""


def main(args: StopGroupArguments) -> None:
    """Stop the group's part here. What has been stopped may be stopped again."""
    deployment, host, scripts = args["deployment"], args["host"], args["scripts"]
    deployed = record.read(deployment, host) or {}
    if deployed.get("run_id") != args["run_id"]:
        raise RuntimeError("run %s of %s is not here" % (args["run_id"], deployment))
    permits = [restart_permits.of(deployment, host, args["run_id"], script) for script in scripts]
    for permit in permits:
        permit.forbid()
    ours = processes.of_scripts(deployed, f"{deployment}/{args['run_id']}", scripts)
    killed: List[int] = []
    act = terminate.Termination(ours, lambda event: killed.append(event["count"] if event["event"] == "killed" else 0))
    segments = shared_memory.Segments({})
    segments.note(act.look(ours))
    act.end(terminate.Stage("group", ours, args["grace"], hasty if RAY.issuperset(scripts) else lambda _: False))
    survivors = act.survivors(ours)
    if not survivors:
        for permit in permits:
            permit.forget()
        record.update(deployment, host, lambda before: without_processes(before, args))
    reply: StopGroupReply = {
        "ended": act.ended(),
        "killed": sum(killed),
        "survivors": survivors,
        "segments": segments.remove(),
    }
    with contextlib.suppress(OSError):  # nobody listens any more
        send(reply)


def hasty(process: Process) -> bool:
    """Return whether it is a daemon of Ray's that has nothing to tidy up: a raylet tells the head that it leaves."""
    return not ranks.of_engine(process) and ranks.part(process) != "raylet"


def without_processes(before: Record, args: StopGroupArguments) -> Record:
    """Return the record without the group's processes, if it is still that of the run."""
    if before.get("run_id") != args["run_id"]:
        return before
    left = [process for process in before.get("processes", []) if process["script"] not in args["scripts"]]
    return {**before, "processes": left}
