"""Run this host's Ray node, and restart it when its raylet or GCS dies: a supervisor whose server is `ray start`.

`ray start` ends with status 0 and leaves daemons behind, which this process adopts. `ray start --block` would take the
node down for a dashboard that died as well, and keeps 100 MB of Python. What waits for Ray: see `on_ray.py`.
"""

from __future__ import annotations

import sys
from typing import Dict, List, Sequence

from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.supervisor.descendants import Descendants, adopt_orphans, reap_all
from flagscale_deploy.remote.supervisor.ends import End, describe_exit
from flagscale_deploy.remote.supervisor.health import Lifetime
from flagscale_deploy.remote.supervisor.options import parse
from flagscale_deploy.remote.supervisor.signals import Signals
from flagscale_deploy.remote.supervisor.supervise import POLL_SECONDS, Supervisor
from flagscale_deploy.remote.system import proc

DAEMONS = ("gcs_server", "raylet")


def command(words: Sequence[str]) -> None:
    """Supervise a Ray node until it is not restarted any more; exit with its status."""
    options = parse(words)
    adopt_orphans()
    sys.exit(RayNode(options, Signals()).run())


class RayNode(Supervisor):
    """The supervisor of a Ray node. The node is healthy once `ray start` has ended with status 0."""

    remains_seconds = 1.0
    """The dashboard's processes do not end of SIGTERM."""

    def _wait_for_end(self, child: int, lifetime: Lifetime) -> End:
        end = super()._wait_for_end(child, lifetime)
        if end != End(0):
            return end
        daemons = [process for process in Descendants().among(proc.scan()) if ranks.part(process) in DAEMONS]
        raylets = [process.pid for process in daemons if ranks.part(process) == "raylet"]
        if not raylets:
            return End(1, "lost its raylet while it started")
        if self._group.is_another(raylets[0]):
            self._update({"in_a_row": 0})
        lifetime.healthy()
        super()._note_health(lifetime)
        ended: Dict[int, int] = {}
        while True:
            ended.update(reap_all())
            lost = [process for process in daemons if not proc.alive(process)]
            if lost:
                return End(1, describe_loss(lost, ended))
            if self._signals.ending and not self._files.forbidden:
                self._remains.end()
                return End(0)
            self._group.look()
            self._signals.wait(POLL_SECONDS)

    def _note_health(self, lifetime: Lifetime) -> None:
        """Do nothing while `ray start` runs."""


def describe_loss(lost: List[proc.Process], ended: Dict[int, int]) -> str:
    """Return which daemons have ended, and how."""
    return "; ".join(
        "lost its %s" % ranks.part(process)
        + (", which %s" % describe_exit(ended[process.pid]) if process.pid in ended else "")
        for process in lost
    )
