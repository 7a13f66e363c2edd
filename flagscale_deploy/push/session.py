"""The session with all hosts of a push: send orders to all of them, and collect their replies."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping

from flagscale_deploy.errors import DeployError, HostError, NoReplyError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.push.members import Inbox, Member
from flagscale_deploy.remote.messages.push import PushOrder, PushReply
from flagscale_deploy.support.units import format_size

POLL_SECONDS = 0.25
SILENCE_SECONDS = 120.0
"""A hashing host reports its progress every half second; after so long without a reply it has failed."""
SHOW_SECONDS = 5.0
STAGE = "push"


class Session:
    """The programs of a push by host (the source's is ""), and the errors of those that failed."""

    def __init__(self, inbox: Inbox, source: str, say: Sink) -> None:
        """Begin without programs; `source` is the source's name in errors."""
        self.inbox, self.source, self.say = inbox, source, say
        self.members: dict[str, Member] = {}
        self.failed: dict[str, HostError] = {}
        self.ended: set[str] = set()
        self.ending = False
        """Whether programs have been ordered to end, so that their end is no failure."""

    def fail(self, name: str, error: HostError) -> None:
        """Note a host's error, and close its program."""
        if name not in self.failed:
            self.failed[name] = error
            self.say(Event(STAGE, "failed", error.host, error.problem))
            if name in self.members:
                self.members[name].close()

    def order(self, order: PushOrder) -> None:
        """Send an order to all hosts that are left, except for the source."""
        for name in self.hosts:
            self.members[name].order(order)

    @property
    def hosts(self) -> list[str]:
        """Return the hosts that are left, without the source."""
        return [name for name in self.members if name and name not in self.failed]

    def collect(self, wanted: Mapping[str, str]) -> dict[str, PushReply]:
        """Wait for a reply with this key, or `refused`, from each host; leave out hosts that fail.

        Raises what ends the whole push.
        """
        replies: dict[str, PushReply] = {}
        received_at = dict.fromkeys(wanted, time.monotonic())
        shown_at = dict(received_at)
        while waiting := [name for name in wanted if name not in replies and name not in self.failed]:
            for name in waiting:
                if time.monotonic() - received_at[name] > SILENCE_SECONDS:
                    problem = f"no reply for {SILENCE_SECONDS:g} s"
                    self.fail(name, RemoteError(name or self.source, problem, "check the host's load and disks"))
            for name, message in self.receive():
                received_at[name] = time.monotonic()
                if "hashed" in message and received_at[name] - shown_at.get(name, 0.0) > SHOW_SECONDS:
                    shown_at[name] = received_at[name]
                    self.say(Event(STAGE, "progress", name, f"{format_size(message['hashed'])} hashed"))
                if name in wanted and (wanted[name] in message or "refused" in message):
                    replies.setdefault(name, message)
            for name in self.ended.intersection(wanted) - replies.keys():
                self.fail(name, NoReplyError(name or self.source, "its program ended without a reply"))
        return replies

    def receive(self) -> list[tuple[str, PushReply]]:
        """Wait a moment for messages, and return them; note errors, and programs that ended too early."""
        received = []
        try:
            received.append(self.inbox.get(timeout=POLL_SECONDS))
            while True:
                received.append(self.inbox.get_nowait())
        except queue.Empty:
            pass
        messages = []
        for name, message in received:
            if isinstance(message, HostError):
                self.fail(name, message)
            elif isinstance(message, DeployError):
                raise message
            elif message is None:
                self.ended.add(name)
                if not self.ending:
                    self.fail(name, RemoteError(name or self.source, "its program ended before the push was complete"))
            elif name not in self.failed:
                messages.append((name, message))
        return messages

    def wait_for_ends(self, seconds: float) -> None:
        """Wait until all programs have ended, and their listeners with them; one that does not end has failed."""
        deadline = time.monotonic() + seconds
        while (waiting := self.members.keys() - self.ended - self.failed.keys()) and time.monotonic() < deadline:
            self.receive()
        for name in waiting:
            self.fail(name, RemoteError(name or self.source, f"its program did not end within {seconds:g} s"))

    def close(self) -> None:
        """End all programs that still run."""
        for member in self.members.values():
            member.close()
        for member in self.members.values():
            member.join(5.0)
