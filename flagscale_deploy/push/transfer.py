"""Carries out a schedule: orders go out, news come in, until every host has everything or can get no more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.events import Event
from flagscale_deploy.push.schedule import SOURCE, Order, Schedule
from flagscale_deploy.push.session import STAGE, Talk
from flagscale_deploy.remote.messages.push import PushReply
from flagscale_deploy.support.units import format_duration, format_size

STALL_SECONDS = 60.0
Place = tuple[str, int]


@dataclass
class Progress:
    """How far a host is: bytes that came, and when the last of them did."""

    wanted: int
    received: int = 0
    moved_at: float = 0.0
    rates: list[tuple[float, int]] = field(default_factory=list)


class Transfer:
    """One way through a schedule. `sizes` are the bytes of each piece; `places` where hosts (and "") can be called."""

    def __init__(
        self, talk: Talk, sizes: Sequence[int], have: Mapping[str, Iterable[int]], places: Mapping[str, Place]
    ) -> None:
        self._talk, self._places = talk, places
        self._schedule = Schedule(len(sizes), have)
        self._fed = set(have) if SOURCE not in talk.members or SOURCE not in places else set()
        """The hosts that we send the source's pieces to; the others get them from it."""
        self.sent = 0
        """Bytes that left the source."""
        self._sizes = sizes
        self._began = self._shown = time.monotonic()
        held = {name: set(found) for name, found in have.items()}
        self.progress = {
            name: Progress(sum(size for piece, size in enumerate(sizes) if piece not in found), 0, self._began)
            for name, found in held.items()
        }

    def run(self) -> None:
        """Until nothing more can be done; hosts that could not be served have failed in the talk then."""
        schedule = self._schedule
        for name in self.progress:
            if name not in self._places:
                schedule.mark_unreachable(name)
        while not schedule.done:
            for order in schedule.next(time.monotonic()):
                self._carry_out(order)
            for name, message in self._talk.listen():
                self._hear(name, message)
            self._let_go()
            self._show()

    def _carry_out(self, order: Order) -> None:
        member, by_us = self._talk.members[order.target], order.origin == SOURCE and order.target in self._fed
        if order.cancel:
            if not by_us:
                member.order({"cancel": order.piece})
            elif member.unfeed(order.piece):
                self._schedule.mark_failed(order.target, order.piece, "cancelled")
            return
        if order.origin == SOURCE:
            self.sent += self._sizes[order.piece]
        if by_us:
            member.feed(order.piece)
        else:
            member.order({"fetch": order.piece, "from": self._places[order.origin]})

    def _hear(self, name: str, message: PushReply) -> None:
        if name == SOURCE:
            if "refused" in message:  # a file that can be read no more ends the push: nobody can get it whole
                raise RemoteError(self._talk.source, str(message["refused"]), "push again")
            return
        try:
            self._hear_of(name, message)
        except (KeyError, TypeError, ValueError) as error:
            self._talk.fail(name, RemoteError(name, f"its program says what none of ours would: {error!r}"))

    def _hear_of(self, name: str, message: PushReply) -> None:
        progress, now = self.progress[name], time.monotonic()
        if "received" in message:
            progress.received, progress.moved_at = int(message["received"]), now
        elif "got" in message:
            progress.moved_at = now
            self._schedule.mark_received(name, int(message["got"]), now)
            if self._schedule.has_all(name):
                text, took = format_size(progress.wanted), now - self._began
                self._talk.say(Event(STAGE, "done", name, text, elapsed=took))
        elif "failed" in message:
            cut_off = self._schedule.mark_failed(name, int(message["failed"]), str(message["kind"]))
            if cut_off is not None:
                self._go_another_way(name, cut_off, str(message["why"]))
        elif "broken" in message:
            self._talk.fail(name, RemoteError(name, str(message["broken"]), "free its disk, then push again"))

    def _go_another_way(self, name: str, other: str, why: str) -> None:
        """A host can't get anything from another: the others have the pieces, too, and the source's go through us."""
        address, port = self._places.get(other, ("", 0))
        whom = other or self._talk.source
        if other == SOURCE and name not in self._fed and SOURCE not in self._talk.failed:
            self._fed.add(name)
            self._schedule.mark_reachable(SOURCE, name)
        text = f"cannot get anything from {whom} ({address}:{port}: {why}); what it needs goes another way"
        self._talk.say(Event(STAGE, "note", name, text))

    def _let_go(self) -> None:
        """Go on without those that failed, that stand still, and that nobody can serve."""
        now = time.monotonic()
        if SOURCE in self._talk.failed:
            self._schedule.mark_unreachable(SOURCE)
        for name, progress in self.progress.items():
            if name in self._talk.failed:
                self._schedule.mark_lost(name)
            elif not self._schedule.waiting(name):
                progress.moved_at = now
            elif now - progress.moved_at > STALL_SECONDS:
                problem = f"nothing came there for {STALL_SECONDS:g} s"
                self._talk.fail(name, RemoteError(name, problem, "look at its disk and network, then push again"))
                self._schedule.mark_lost(name)
        for name in self._schedule.unservable():
            problem = "nobody is left who could send it what it misses"
            remedy = "push again; `check` tries the data network"
            self._talk.fail(name, RemoteError(name, problem, remedy))
            self._schedule.mark_lost(name)

    def _show(self) -> None:
        """Say how far each host is: every second at first, less often in a long push."""
        now = time.monotonic()
        if now - self._shown < min(30.0, max(1.0, (now - self._began) / 30)):
            return
        self._shown = now
        for name, progress in self.progress.items():
            if name not in self._talk.failed and not self._schedule.has_all(name):
                progress.rates = [*progress.rates[-5:], (now, progress.received)]
                self._talk.say(Event(STAGE, "progress", name, describe(progress), percent(progress)))


def percent(progress: Progress) -> float:
    """How much of what a host misses has come, 0 to 100."""
    return min(100.0, 100.0 * progress.received / max(1, progress.wanted))


def describe(progress: Progress) -> str:
    """`1.2 GiB of 15.3 GiB, 240.0 MiB/s, 59s left`, the rate over the last few looks."""
    said = f"{format_size(min(progress.received, progress.wanted))} of {format_size(progress.wanted)}"
    (first, before), (last, after) = (progress.rates[0], progress.rates[-1]) if progress.rates else ((0.0, 0), (0.0, 0))
    if last <= first or after <= before:
        return said
    rate = (after - before) / (last - first)
    left = max(0, progress.wanted - after) / rate
    return f"{said}, {format_size(rate)}/s, {format_duration(left)} left"
