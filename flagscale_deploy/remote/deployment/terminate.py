"""End a family of processes: SIGTERM first, then SIGKILL, then another look."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Set, Union

from flagscale_deploy.remote.deployment.processes import Family
from flagscale_deploy.remote.system.gpus import user_of
from flagscale_deploy.remote.system.proc import Identity, Process, alive, scan, send

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.stop import StopKilled, StopStage, Survivor

POLL_SECONDS = 0.05
RESCAN_SECONDS = 0.5
"""How often to look for processes born meanwhile; a look at all of /proc costs more than one at those known."""
KILL_SECONDS = 20.0
"""How long a process may take to die of SIGKILL: the driver first takes down what it holds on its GPUs."""


MOST_SURVIVORS = 20
"""As many are listed: a message of `stop` has 64 KiB at most."""
HASTE_SECONDS = 0.5
"""The grace of what has nothing to tidy up. Of Ray's daemons, those that SIGTERM ends are gone in 0.1 s; a raylet takes
10 s over it, and the GCS and the autoscaler's monitor never end (measured with Ray 2.60)."""


class Stage(NamedTuple):
    """A part of the deployment that is ended by itself.

    `grace` is the time between SIGTERM and SIGKILL, in seconds; those that `hasty` names get HASTE_SECONDS at most.
    """

    name: str
    family: Family
    grace: float
    hasty: Callable[[Process], bool] = lambda _: False


class Termination:
    """The end of everything that is `ours`: `seen` are all the processes of ours that were there at some time."""

    def __init__(self, ours: Family, tell: Callable[[Union[StopStage, StopKilled]], None]) -> None:
        self.seen: Set[Identity] = set()
        self._ours, self._tell = ours, tell
        self._refused: Set[Identity] = set()
        self._given_up: Set[Identity] = set()

    def look(self, family: Family) -> List[Process]:
        """Return the live processes of a family; note what is ours, while parents still show whose it is."""
        everyone = scan()
        self.seen.update(process.identity for process in self._ours.among(everyone))
        return family.among(everyone)

    def end(self, stage: Stage) -> None:
        """Send SIGTERM to each process once, SIGKILL after the grace, both also to what appears meanwhile.

        Returns as soon as all are gone, or none but those that we may not signal; at the latest 20 s after the grace.
        """
        began = time.monotonic()
        kill_at, give_up_at = began + stage.grace, began + stage.grace + KILL_SECONDS
        haste_at = min(kill_at, began + HASTE_SECONDS)
        terminated: Set[Identity] = set()
        killed: Set[Identity] = set()
        while True:
            running = [process for process in self.look(stage.family) if process.identity not in self._given_up]
            now = time.monotonic()
            if now >= give_up_at:
                self._given_up.update(process.identity for process in running)
            if not running or now >= give_up_at:
                break
            if not terminated and not killed:
                self._tell({"event": "stage", "stage": stage.name, "signalled": len(running)})
            late = [process for process in running if now >= kill_at or (now >= haste_at and stage.hasty(process))]
            self._signal(late, signal.SIGKILL, killed)
            self._signal([process for process in running if process not in late], signal.SIGTERM, terminated)
            until = give_up_at if now >= kill_at else kill_at if now >= haste_at else haste_at
            _wait(running, min(until, now + RESCAN_SECONDS))
        if killed:
            self._tell({"event": "killed", "count": len(killed)})

    def survivors(self, family: Family) -> List[Survivor]:
        """Return what still runs of a family by a fresh look, and why; of more than 20, how many more there are."""
        running = self.look(family)
        listed: List[Survivor] = [
            {"pid": process.pid, "command": process.command, "state": process.state, "why": self._why(process)}
            for process in running[:MOST_SURVIVORS]
        ]
        more = running[MOST_SURVIVORS:]
        if more:
            listed.append(
                {"pid": more[0].pid, "command": "and others", "state": "", "why": "%d more are left" % len(more)}
            )
        return listed

    def ended(self) -> int:
        """Return how many of those that were there are gone, by a fresh look."""
        return len(self.seen - {process.identity for process in self.look(self._ours)})

    def _signal(self, processes: List[Process], signum: int, done: Set[Identity]) -> None:
        for process in processes:
            if process.identity not in done and send(process, signum) == "refused":
                self._refused.add(process.identity)
                self._given_up.add(process.identity)
            done.add(process.identity)

    def _why(self, process: Process) -> str:
        if process.identity in self._refused:
            return f"it belongs to the user {user_of(process.uid)}; we have no permission to signal it"
        if process.state == "D":
            return "it waits in the kernel (state D), often for a GPU driver or a network file system"
        return f"it did not end within {KILL_SECONDS:.0f} s of SIGKILL"


def _wait(processes: List[Process], until: float) -> None:
    """Wait until all of them have ended, or the time has come."""
    while time.monotonic() < until and any(alive(process) for process in processes):
        time.sleep(POLL_SECONDS)
