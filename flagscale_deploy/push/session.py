"""A conversation with all hosts of a push: told something together, and waited for together."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping

from flagscale_deploy.errors import DeployError, HostError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.push.members import Inbox, Member
from flagscale_deploy.remote.messages.push import PushOrder, PushReply
from flagscale_deploy.support.units import format_size

POLL_SECONDS = 0.25
SILENCE_SECONDS = 120.0
"""A host that hashes tells how far it is every half second; one that says nothing for so long is given up."""
SHOW_SECONDS = 5.0
STAGE = "push"


class Talk:
    """The hosts that are with us, by name (the source's program is ""), and why others no longer are."""

    def __init__(self, inbox: Inbox, source: str, say: Sink) -> None:
        """`source` is what the source is called in errors."""
        self.inbox, self.source, self.say = inbox, source, say
        self.members: dict[str, Member] = {}
        self.failed: dict[str, HostError] = {}
        self.ended: set[str] = set()
        self.ending = False
        """Whether programs were told to end: that they do is no failure then."""

    def fail(self, name: str, error: HostError) -> None:
        """Go on without a host."""
        if name not in self.failed:
            self.failed[name] = error
            self.say(Event(STAGE, "failed", error.host, error.problem))
            if name in self.members:
                self.members[name].close()

    def tell(self, order: PushOrder) -> None:
        """Tell all hosts that are left, but not the source."""
        for name in self.hosts:
            self.members[name].order(order)

    @property
    def hosts(self) -> list[str]:
        """The hosts that are left, without the source."""
        return [name for name in self.members if name and name not in self.failed]

    def collect(self, wanted: Mapping[str, str]) -> dict[str, PushReply]:
        """An answer with this key, or "refused", of each of these; who fails is left out. Raises what ends us all."""
        found: dict[str, PushReply] = {}
        heard = dict.fromkeys(wanted, time.monotonic())
        shown = dict(heard)
        while waiting := [name for name in wanted if name not in found and name not in self.failed]:
            for name in waiting:
                if time.monotonic() - heard[name] > SILENCE_SECONDS:
                    problem = f"no word for {SILENCE_SECONDS:g} s"
                    self.fail(name, RemoteError(name or self.source, problem, "look at the host's load and disks"))
            for name, message in self.listen():
                heard[name] = time.monotonic()
                if "hashed" in message and heard[name] - shown.get(name, 0.0) > SHOW_SECONDS:
                    shown[name] = heard[name]
                    self.say(Event(STAGE, "progress", name, f"{format_size(message['hashed'])} hashed"))
                if name in wanted and (wanted[name] in message or "refused" in message):
                    found.setdefault(name, message)
            for name in self.ended.intersection(wanted) - found.keys():
                self.fail(name, RemoteError(name or self.source, "its program ended without an answer"))
        return found

    def listen(self) -> list[tuple[str, PushReply]]:
        """What has been said; waits a moment for it. Who ended before its time has failed."""
        said = []
        try:
            said.append(self.inbox.get(timeout=POLL_SECONDS))
            while True:
                said.append(self.inbox.get_nowait())
        except queue.Empty:
            pass
        messages = []
        for name, message in said:
            if isinstance(message, HostError):
                self.fail(name, message)
            elif isinstance(message, DeployError):
                raise message
            elif message is None:
                self.ended.add(name)
                if not self.ending:
                    self.fail(name, RemoteError(name or self.source, "its program ended before the push did"))
            elif name not in self.failed:
                messages.append((name, message))
        return messages

    def wait_for_ends(self, seconds: float) -> None:
        """Wait until all programs have ended: their listeners are gone then. One that doesn't end has failed."""
        until = time.monotonic() + seconds
        while (waiting := self.members.keys() - self.ended - self.failed.keys()) and time.monotonic() < until:
            self.listen()
        for name in waiting:
            self.fail(
                name, RemoteError(name or self.source, f"its program still runs {seconds:g} s after it was told to end")
            )

    def close(self) -> None:
        """End everything that still runs."""
        for member in self.members.values():
            member.close()
        for member in self.members.values():
            member.join(5.0)
