"""Ask Ray what it lacks, while an engine that starts waits for its GPUs."""

from __future__ import annotations

import re
import threading

from flagscale_deploy.errors import HostError, InterruptedByUser, NotReadyError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.stages import SERVE
from flagscale_deploy.remote.messages.program import Target
from flagscale_deploy.remote.messages.run import RAY_NODES, RayNodesReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.remote_program import call

PATIENCE_SECONDS = 2.0
"""How long Ray may take to assign GPUs before we ask what it waits for; it takes two more to answer."""
ASK_AGAIN_SECONDS = 3.0
ASK_SECONDS = 60.0
_PLACEMENT_GROUP = re.compile(r"Creating a new placement group|Waiting for creating a placement group")
_GPUS_NEEDED = re.compile(r"'GPU': (\d{1,6}(?:\.\d{1,6})?)")


class TooFewGpusError(RemoteError):
    """An engine asks Ray for more GPUs than all of its nodes have; it would wait for half an hour."""

    exit_code = NotReadyError.exit_code


class PlacementWatch:
    """Watches for Ray's assignment of GPUs, from the line of an engine's log on that it waits for them."""

    def __init__(self, plan: Plan, fleet: Fleet, over: threading.Event, say: Sink) -> None:
        self._plan, self._fleet, self._over, self._say = plan, fleet, over, say
        self._asked = threading.Event()
        self._needs = 0.0

    def note_line(self, line: str) -> None:
        """Record a line of an engine's log; only those about its placement group count."""
        if _PLACEMENT_GROUP.search(line):
            self._needs = max(self._needs, sum(map(float, _GPUS_NEEDED.findall(line))))
            self._asked.set()

    def watch(self) -> None:
        """Report what GPUs Ray has while it cannot assign those that an engine has asked for.

        Raises TooFewGpusError where all of its nodes are there, and have too few, and had so the last time.
        """
        shown = ""
        wait = PATIENCE_SECONDS
        while not self._over.is_set():
            if not self._asked.wait(0.25) or self._pause(wait):
                continue
            try:
                args: Target = {"deployment": self._plan.deployment, "host": self._plan.head}
                head = self._fleet.connection(self._plan.head)
                reply = call(head, RAY_NODES, args, timeout=ASK_SECONDS, cancelled=self._over)
            except (HostError, InterruptedByUser):
                return
            text = self._lack(reply)
            if text != shown and (text or shown):
                self._say(Event(SERVE, "note", self._plan.head, text or "Ray has assigned the GPUs"))
            elif text and self._never(reply):
                raise TooFewGpusError(self._plan.head, text, "ask for fewer GPUs, or add hosts to the deployment")
            if not text:
                return
            shown, wait = text, ASK_AGAIN_SECONDS

    def _waited_for(self, reply: RayNodesReply) -> float:
        """Return how many GPUs engines wait for, as Ray counts or, if it does not, as their logs tell."""
        return reply.get("pending", self._needs)

    def _never(self, reply: RayNodesReply) -> bool:
        """Return whether Ray will not have that many: its nodes are all there."""
        return not reply.get("missing", ("?",)) and self._waited_for(reply) > sum(reply.get("nodes", {}).values())

    def _lack(self, reply: RayNodesReply) -> str:
        """Describe what Ray lacks; "" where nothing waits for GPUs."""
        needed = self._waited_for(reply)
        if not needed:
            return ""
        gpus, free = reply.get("nodes", {}), reply.get("available", {}).get("GPU", 0)
        nodes = ", ".join(f"{address}: {number:g}" for address, number in gpus.items())
        return (
            f"the engine waits for its placement group: it needs {needed:g} {'GPU' if needed == 1 else 'GPUs'}, "
            f"Ray has {sum(gpus.values()):g} ({nodes}), {free:g} of them free"
        )

    def _pause(self, seconds: float) -> bool:
        """Wait; return whether the watch has ended meanwhile."""
        pause = Deadline(seconds)
        while not pause.expired:
            if self._over.wait(min(0.1, pause.remaining)) or self._over.is_set():
                return True
        return False
