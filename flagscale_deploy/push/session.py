"""The session with all hosts of a push: send orders to all of them, and collect their replies."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from flagscale_deploy.errors import DeployError, HostError, NoReplyError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.push.members import Inbox, Member
from flagscale_deploy.push.replies import MALFORMED, ReplyValidator
from flagscale_deploy.remote.messages.push import PushOrder, PushReply
from flagscale_deploy.support.units import format_size
from flagscale_deploy.transport.remote_program import at_once

POLL_SECONDS = 0.25
SILENCE_SECONDS = 120.0
"""A hashing host reports its progress every half second; after so long without a reply or progress it has failed."""
SLOWEST = 64 << 10
"""Bytes a second. Whoever hashes less makes no progress, however often it reports."""
HASHING = ("looked", "digests", "have")
"""The replies before which a host hashes; before others its reports are no progress."""
REPORTS_AT_ONCE, REPORTS_PER_SECOND = 64, 4
"""How often a host may report its progress; it does so twice a second."""
SHOW_SECONDS = 5.0
STAGE = "push"


class Growth:
    """Whether a count grows by `slowest` a second at least, over `seconds` each."""

    def __init__(self, seconds: float, slowest: float) -> None:
        self._seconds, self._enough = seconds, seconds * slowest
        self._count, self._at = 0, time.monotonic()

    def note(self, count: int) -> None:
        """Note the count as of now."""
        if count - self._count >= self._enough:
            self.renew(count)

    def renew(self, count: int) -> None:
        """Begin anew with a count."""
        self._count, self._at = count, time.monotonic()

    @property
    def is_over(self) -> bool:
        """Return whether the count has grown too little for too long."""
        return time.monotonic() - self._at > self._seconds


class Session:
    """The programs of a push by host (the source's is ""), and the errors of those that failed."""

    def __init__(self, inbox: Inbox, source: str, say: Sink) -> None:
        """Begin without programs; `source` is the source's name in errors."""
        self.inbox, self.source, self.say = inbox, source, say
        self.members: dict[str, Member] = {}
        self.failed: dict[str, HostError] = {}
        self.ended: set[str] = set()
        self.validator = ReplyValidator()
        self._reports: Counter[str] = Counter()
        self._began = time.monotonic()
        self.ending = False
        """Whether programs have been ordered to end, so that their end is no failure."""

    def fail(self, name: str, error: HostError) -> None:
        """Note a host's error, and close its program."""
        if name not in self.failed:
            if not error.host:  # the source's member does not know its name
                error = RemoteError(self.source, error.problem, error.remedy)
            self.failed[name] = error
            self.say(Event(STAGE, "failed", error.host, error.problem))
            if name in self.members:  # which may wait for the host
                threading.Thread(target=self.members[name].close, daemon=True).start()

    def order(self, order: PushOrder) -> None:
        """Send an order to all hosts that are left, except for the source."""
        for name in self.hosts:
            self.members[name].order(order)

    @property
    def errors(self) -> dict[str, HostError]:
        """Return the errors of hosts by their names, the source's included."""
        return {name or self.source: error for name, error in self.failed.items()}

    @property
    def hosts(self) -> list[str]:
        """Return the hosts that are left, without the source."""
        return [name for name in self.members if name and name not in self.failed]

    def collect(self, wanted: Mapping[str, str]) -> dict[str, PushReply]:
        """Wait for a reply with this key, or `refused`, from each host; leave out hosts that fail.

        Raises what ends the whole push.
        """
        replies: dict[str, PushReply] = {}
        growth = {name: Growth(SILENCE_SECONDS, SLOWEST) for name in wanted}
        shown_at = dict.fromkeys(wanted, time.monotonic())
        while waiting := [name for name in wanted if name not in replies and name not in self.failed]:
            for name in waiting:
                if growth[name].is_over:
                    problem = f"no reply and no progress for {SILENCE_SECONDS:g} s"
                    self.fail(name, RemoteError(name or self.source, problem, "check the host's load and disks"))
            for name, message in self.receive():
                if "hashed" in message and wanted.get(name) in HASHING:
                    growth[name].note(message["hashed"])
                    if time.monotonic() - shown_at[name] > SHOW_SECONDS:
                        shown_at[name] = time.monotonic()
                        self.say(Event(STAGE, "progress", name, f"{format_size(message['hashed'])} hashed"))
                if name in wanted and (wanted[name] in message or "refused" in message):
                    replies.setdefault(name, message)
            for name in self.ended.intersection(wanted) - replies.keys():
                self.fail(name, NoReplyError(name or self.source, "its program ended without a reply"))
        return replies

    def receive(self) -> list[tuple[str, PushReply]]:
        """Wait a moment for messages, and return them; note errors, and programs that ended too early."""
        received = []
        with suppress(queue.Empty):
            received.append(self.inbox.get(timeout=POLL_SECONDS))
            for _ in range(self.inbox.qsize()):  # and no more: a host may send faster than they are taken
                received.append(self.inbox.get_nowait())
        messages = []
        for name, message in received:
            if name in self.members:
                self.members[name].note_taken()
            if isinstance(message, HostError):
                self.fail(name, message)
            elif isinstance(message, DeployError):
                raise message
            elif message is None:
                self.ended.add(name)
                if not self.ending:
                    self.fail(name, RemoteError(name or self.source, "its program ended before the push was complete"))
            elif name not in self.failed and self._is_valid(name, message):
                messages.append((name, message))
        return messages

    def _is_valid(self, name: str, message: PushReply) -> bool:
        """Return whether a reply can be used; else its host has failed."""
        try:
            self.validator.validate(message)
            problem = ""
        except MALFORMED as error:
            problem = f"malformed message from the remote program: {error}"
        if "hashed" in message or "received" in message:
            self._reports[name] += 1
            allowed = REPORTS_AT_ONCE + REPORTS_PER_SECOND * (time.monotonic() - self._began)
            if self._reports[name] > allowed:
                problem = f"it reported its progress more than {int(allowed)} times"
        if problem:
            self.fail(name, RemoteError(name or self.source, problem, "check what runs there"))
        return not problem

    def wait_for_ends(self, seconds: float) -> None:
        """Wait until all programs have ended, and their listeners with them; one that does not end has failed."""
        deadline = time.monotonic() + seconds
        while (waiting := self.members.keys() - self.ended - self.failed.keys()) and time.monotonic() < deadline:
            self.receive()
        for name in waiting:
            self.fail(name, RemoteError(name or self.source, f"its program did not end within {seconds:g} s"))

    def close(self) -> None:
        """End all programs that still run."""
        at_once(member.close for member in self.members.values())
        at_once(partial(member.join, 5.0) for member in self.members.values())
