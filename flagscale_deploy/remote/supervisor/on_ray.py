"""What the supervisor of a server over Ray knows of Ray: its own node here, and what Ray counts."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from flagscale_deploy.remote.deployment import processes, record, restart_permits
from flagscale_deploy.remote.engine import ranks, ray_nodes
from flagscale_deploy.remote.supervisor.ends import duration
from flagscale_deploy.remote.supervisor.health import Lifetime
from flagscale_deploy.remote.system import proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import RayNodesReply
    from flagscale_deploy.remote.messages.status import RestartState

SCRIPTS = ("ray_head.sh", "ray_worker.sh")
POLL_SECONDS = 2.0
AWAY = "Ray does not run on this host"


def node_state(directory: Path, run_id: str) -> RestartState:
    """Return what the supervisor of this host's Ray node says; nothing where it was killed, or there is none."""
    for script in SCRIPTS:
        state = restart_permits.Files(directory, run_id, script).read()
        if state is not None:
            return state if state["state"] == "gave up" or _is_supervised(directory, script) else {}
    return {}


def _is_supervised(directory: Path, script: str) -> bool:
    try:
        started = record.load(directory / "record.json").get("processes", [])
    except (OSError, ValueError):
        return False
    return any(
        process["script"] == script
        and process["boot_id"] == record.boot_id()
        and proc.lives(process["pid"], process["start_ticks"])
        for process in started
    )


def raylet() -> Optional[proc.Process]:
    """Return this run's raylet on this host, None where it has none."""
    ours = processes.marked(os.environ.get(proc.MARKER, ""))
    return next((item for item in proc.scan() if ranks.part(item) == "raylet" and ours(item)), None)


class RayletWatcher:
    """Finds out when the raylet of this host has ended, of which an engine that is idle takes no notice."""

    def __init__(self) -> None:
        self._raylet: Optional[proc.Process] = None

    def start(self, lifetime: Lifetime) -> None:
        """Note the raylet of a new run of the server."""
        del lifetime
        self._raylet = raylet()

    def problem(self) -> str:
        """Return that the raylet has ended, "" while it runs."""
        return "lost Ray's raylet on this host" if self._raylet and not proc.alive(self._raylet) else ""

    def end(self) -> None:
        """Forget the raylet."""
        self._raylet = None


class Waiting:
    """The wait for Ray to have every node, and `gpus` free, for `seconds` at most.

    After `spare` seconds it is enough that the nodes which are there have them: those of another host, say.
    """

    def __init__(self, directory: Path, run_id: str, gpus: int, seconds: float, spare: Optional[float] = None) -> None:
        self._directory, self._run_id = directory, run_id
        self._gpus, self._seconds = gpus, seconds
        self._spare = math.inf if spare is None else min(spare, seconds)

    def until_whole(self, go_on: Callable[[], bool], pause: Callable[[float], None], log: Callable[[str], None]) -> str:
        """Return "" when Ray is whole, or as soon as `go_on` says no, else why it is not.

        The time while the Ray node of this host is being restarted does not count.
        """
        since = time.monotonic()
        logged = ""
        while go_on():
            node = node_state(self._directory, self._run_id)
            if node.get("state") == "gave up":
                return "Ray does not run on this host: %s" % node.get("why")
            here = raylet() is not None
            restarting = bool(node) and not (here and node.get("healthy"))
            if restarting:
                since = time.monotonic()
                lacking = "Ray is being restarted on this host"
            else:
                script = self._directory / "scripts" / "ray_nodes.sh"
                some = time.monotonic() - since >= self._spare
                lacking = what_ray_lacks(ray_nodes.ask(script), self._gpus, some=some) if here else AWAY
            if not lacking:
                return ""
            if not restarting and time.monotonic() - since >= self._seconds:
                return "%s, after %s" % (lacking, duration(self._seconds))
            if lacking != logged:
                log("waiting: %s" % lacking)
                logged = lacking
            pause(POLL_SECONDS)
        return ""


def what_ray_lacks(reply: RayNodesReply, gpus: int, *, some: bool = False) -> str:
    """Return why an instance cannot be started on Ray yet, "" if it can; with `some` also without all of its nodes."""
    if reply.get("why"):
        return "Ray does not answer: %s" % reply["why"]
    if reply.get("missing") and not some:
        return "Ray lacks %s" % ", ".join(map(str, reply["missing"]))
    free = reply.get("available", {}).get("GPU", 0)
    return "" if free >= gpus else "Ray has %g of %d GPUs free" % (free, gpus)
