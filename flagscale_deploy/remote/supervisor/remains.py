"""End what a server has left on this host, or all of it: its descendants, and their shared memory."""

from __future__ import annotations

from typing import AbstractSet, Callable

from flagscale_deploy.remote.deployment import shared_memory
from flagscale_deploy.remote.deployment.terminate import Stage, Termination
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.supervisor.descendants import Descendants, reap
from flagscale_deploy.remote.system import proc


class Remains:
    """What one server has started here. `spared` returns those descendants of its supervisor that are not its own.

    `seconds` is how long its processes have between SIGTERM and SIGKILL.
    """

    def __init__(
        self, spared: Callable[[], AbstractSet[proc.Identity]], seconds: float, log: Callable[[str], None]
    ) -> None:
        self._spared, self._seconds, self._log = spared, seconds, log
        self._segments = shared_memory.Segments({})

    def note_segments(self) -> None:
        """Note the shared memory that its processes have now."""
        self._segments.note(self._descendants().among(proc.scan()))

    def end(self) -> str:
        """End what a server that has ended has left, and remove its shared memory; return what went wrong, or ""."""
        descendants = self._descendants()
        ending = self._terminate(descendants)
        survivors = ending.survivors(descendants)
        reap(0)
        self._segments.remove()
        if ending.seen and not survivors:
            count = len(ending.seen)
            self._log("ended %d remaining process%s" % (count, "" if count == 1 else "es"))
        return "its process {pid} ({command}) cannot be ended: {why}".format(**survivors[0]) if survivors else ""

    def terminate(self) -> None:
        """End the server itself, with all of its descendants."""
        self._terminate(self._descendants())

    def _terminate(self, descendants: Descendants) -> Termination:
        """End all descendants; Ray's daemons, and one that is stopped (SIGSTOP), are killed soon after SIGTERM."""
        ending = Termination(descendants, lambda _: None)
        ending.end(Stage("remains", descendants, self._seconds, _is_hasty))
        return ending

    def _descendants(self) -> Descendants:
        return Descendants(self._spared())


def _is_hasty(process: proc.Process) -> bool:
    return process.state in "Tt" or not ranks.of_engine(process)
