"""Carry out a schedule: send orders and receive replies, until every host has all pieces or can get no more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.events import Event
from flagscale_deploy.push.schedule import SOURCE, Order, Schedule
from flagscale_deploy.push.session import STAGE, Growth, Session
from flagscale_deploy.remote.messages.push import PushReply
from flagscale_deploy.remote.push.wire import SLOWEST
from flagscale_deploy.support.units import format_duration, format_size

STALL_SECONDS = 60.0
MOST_TIMES = 2
"""How many times what it wants a host may report to have received: a piece that fails comes again."""
Address = tuple[str, int]


@dataclass
class Progress:
    """A host's progress: the bytes it wants and has received, and whether they become more."""

    wanted: int
    received: int = 0
    growth: Growth = field(default_factory=lambda: Growth(STALL_SECONDS, SLOWEST))
    rates: list[tuple[float, int]] = field(default_factory=list)


class Transfer:
    """One transfer. `sizes` are the bytes of each piece; `addresses` are where hosts, and the source (""), listen."""

    def __init__(
        self,
        session: Session,
        sizes: Sequence[int],
        have: Mapping[str, Iterable[int]],
        addresses: Mapping[str, Address],
    ) -> None:
        self._session, self._addresses = session, addresses
        self._schedule = Schedule(len(sizes), have)
        self._through_ssh = set(have) if SOURCE not in session.members or SOURCE not in addresses else set()
        """The hosts that get the source's pieces through SSH; the others connect to the source."""
        self.sent = 0
        """Bytes that left the source."""
        self._sizes = sizes
        self._began = self._shown = time.monotonic()
        present = {name: set(pieces) for name, pieces in have.items()}
        self.progress = {
            name: Progress(sum(size for piece, size in enumerate(sizes) if piece not in pieces))
            for name, pieces in present.items()
        }

    def run(self) -> None:
        """Transfer until nothing more can be done; hosts that could not be served have failed in the session."""
        schedule = self._schedule
        for name in self.progress:
            if name not in self._addresses:
                schedule.mark_unreachable(name)
        while not schedule.done:
            for order in schedule.next(time.monotonic()):
                self._carry_out(order)
            for name, message in self._session.receive():
                self._take(name, message)
            self._drop_failed()
            self._show()

    def _carry_out(self, order: Order) -> None:
        member = self._session.members[order.target]
        through_ssh = order.origin == SOURCE and order.target in self._through_ssh
        if order.cancel:
            if not through_ssh:
                member.order({"cancel": order.piece})
            elif member.cancel_send(order.piece):
                self._schedule.mark_failed(order.target, order.piece, "cancelled")
            return
        if order.origin == SOURCE:
            self.sent += self._sizes[order.piece]
        if through_ssh:
            member.send_piece(order.piece)
        else:
            member.order({"fetch": order.piece, "from": self._addresses[order.origin]})

    def _take(self, name: str, message: PushReply) -> None:
        if name == SOURCE:
            if "refused" in message:  # a file cannot be read any more: no host can get all of it
                raise RemoteError(self._session.source, message["refused"], "push again")
            return
        if name in self.progress:
            self._take_from_host(name, message)

    def _take_from_host(self, name: str, message: PushReply) -> None:
        progress, now = self.progress[name], time.monotonic()
        if "received" in message:
            progress.received = min(message["received"], MOST_TIMES * progress.wanted)
            progress.growth.note(progress.received)
        elif "got" in message:
            if not self._schedule.mark_received(name, message["got"], now):
                return
            progress.growth.renew(progress.received)
            if self._schedule.has_all(name):
                text, took = format_size(progress.wanted), now - self._began
                self._session.say(Event(STAGE, "done", name, text, elapsed=took))
        elif "failed" in message:
            cut_off = self._schedule.mark_failed(name, message["failed"], message["kind"])
            if cut_off is not None:
                self._use_another_way(name, cut_off, message["why"])
        elif "broken" in message:
            self._session.fail(name, RemoteError(name, message["broken"], "free its disk, then push again"))

    def _use_another_way(self, name: str, other: str, why: str) -> None:
        """Replace a connection that fails: by SSH for the source's pieces, else by connections to other hosts."""
        address, port = self._addresses.get(other, ("", 0))
        origin = other or self._session.source
        if other == SOURCE and name not in self._through_ssh and SOURCE not in self._session.failed:
            self._through_ssh.add(name)
            self._schedule.mark_reachable(SOURCE, name)
        text = f"cannot get anything from {origin} ({address}:{port}: {why}); it uses another way"
        self._session.say(Event(STAGE, "note", name, text))

    def _drop_failed(self) -> None:
        """Remove hosts that failed, that receive nothing, and that no host can serve."""
        if SOURCE in self._session.failed:
            self._schedule.mark_unreachable(SOURCE)
        for name, progress in self.progress.items():
            if name in self._session.failed:
                self._schedule.mark_lost(name)
            elif not self._schedule.waiting(name):
                progress.growth.renew(progress.received)
            elif progress.growth.is_over:
                problem = f"it received next to nothing for {STALL_SECONDS:g} s"
                self._session.fail(name, RemoteError(name, problem, "check its disk and network, then push again"))
                self._schedule.mark_lost(name)
        for name in self._schedule.unservable():
            problem = "no host is left that could send the pieces that it lacks"
            remedy = "push again; `check` tries the data network"
            self._session.fail(name, RemoteError(name, problem, remedy))
            self._schedule.mark_lost(name)

    def _show(self) -> None:
        """Report each host's progress: every second at first, less often in a long push."""
        now = time.monotonic()
        if now - self._shown < min(30.0, max(1.0, (now - self._began) / 30)):
            return
        self._shown = now
        for name, progress in self.progress.items():
            if name not in self._session.failed and not self._schedule.has_all(name):
                progress.rates = [*progress.rates[-5:], (now, progress.received)]
                self._session.say(Event(STAGE, "progress", name, describe(progress), percent(progress)))


def percent(progress: Progress) -> float:
    """Return how much of what a host wants it has received, 0 to 100."""
    return min(100.0, 100.0 * progress.received / max(1, progress.wanted))


def describe(progress: Progress) -> str:
    """Return `1.2 GiB of 15.3 GiB, 240.0 MiB/s, 59s left`; the rate is that of the last few reports."""
    text = f"{format_size(min(progress.received, progress.wanted))} of {format_size(progress.wanted)}"
    (first, before), (last, after) = (progress.rates[0], progress.rates[-1]) if progress.rates else ((0.0, 0), (0.0, 0))
    if last <= first or after <= before:
        return text
    rate = (after - before) / (last - first)
    left = max(0, progress.wanted - after) / rate
    return f"{text}, {format_size(rate)}/s, {format_duration(left)} left"
