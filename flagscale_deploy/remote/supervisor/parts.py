"""Notice at once that a process has ended without which an engine is none: it may take long to notice it itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Dict

from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.supervisor.descendants import Descendants
from flagscale_deploy.remote.system import proc

if TYPE_CHECKING:
    from typing import Optional

    from flagscale_deploy.remote.supervisor.health import Lifetime

LAST_SCAN_SECONDS = 3600.0


class Parts:
    """Watches the engine cores and workers of a server; reading one's state takes 20 µs.

    They are looked for when it is healthy, and a few times more: a follower counts as healthy from its start on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lifetime: Optional[Lifetime] = None
        self._processes: Dict[proc.Identity, proc.Process] = {}
        self._next_scan = 0.0

    def start(self, lifetime: Lifetime) -> None:
        """Begin with a new run of the server."""
        self._lifetime, self._processes, self._next_scan = lifetime, {}, 0.0

    def end(self) -> None:
        """Forget its processes."""
        self._lifetime = None

    def problem(self) -> str:
        """Return which of them has ended, "" while all live."""
        if self._lifetime is None or self._lifetime.healthy_at is None:
            return ""
        healthy_for = self._clock() - self._lifetime.healthy_at
        if healthy_for >= self._next_scan and self._next_scan < LAST_SCAN_SECONDS:
            self._next_scan = max(1.0, 2 * healthy_for)
            descendants = Descendants().among(proc.scan())
            self._processes.update((process.identity, process) for process in descendants if ranks.part(process))
        gone = [process for process in self._processes.values() if not proc.alive(process)]
        return "%s (process %d) has ended" % (ranks.title(gone[0]), gone[0].pid) if gone else ""
