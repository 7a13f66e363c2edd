"""Who sends which piece to whom next. Reads no clock and no network: time is an argument.

The source's uplink is what everything waits for, so each piece leaves it once; from then on hosts pass it on. A host
asks for what the fewest have, of whoever has it and is the least busy, so that every link works from the first piece
to the last. A transfer that takes too long is given up where somebody else has the piece. With equal links the last
host is ready little later than one host alone would be (tests/unit/push/test_schedule.py simulates it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

SOURCE = ""
"""The name of whoever has all pieces from the start."""
COMING, GOING, PAIR = 8, 12, 3
"""The most transfers to one host, from one host, and between two."""
SENDING = 6
"""The most from the source."""
LATE_SECONDS, LATE_TIMES = 2.0, 3.0
"""A transfer is late when it takes both longer than that, and so many times as long as they usually do."""
UNKNOWN_SECONDS = 30.0
"""While none has ended yet, that long."""
SLOWLY = 2
"""The most transfers to a host where they are late: each of them ends sooner then."""
REMEMBERED = 64
PATIENCE, NO_CONNECTION = 4, 2
"""So many broken transfers make a pair of hosts one that does not work; a connection that is not made counts more."""


@dataclass(frozen=True)
class Order:
    """`target` is to get `piece` from `origin`; with `cancel`, no longer."""

    target: str
    piece: int
    origin: str
    cancel: bool = False


@dataclass
class _Host:
    """What is known of a host; `have`, `coming` are sets of pieces as bits of a number."""

    have: int = 0
    coming: int = 0
    orders: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Where each piece comes from, and since when."""
    given_up: set[int] = field(default_factory=set)
    avoid: set[tuple[int, str]] = field(default_factory=set)
    """Pieces that did not come from there in time."""


class Schedule:
    """The state of a push. `have`: the pieces that each host has from the start."""

    def __init__(self, pieces: int, have: Mapping[str, Iterable[int]]) -> None:
        self._all = (1 << pieces) - 1
        self._pieces = pieces
        self._hosts = {name: _Host(have=_bits(found)) for name, found in have.items()}
        self._going: dict[str, int] = {SOURCE: 0, **dict.fromkeys(have, 0)}
        self._broken: dict[tuple[str, str], int] = {}
        self._took: dict[bool, list[float]] = {True: [], False: []}
        """How long the last transfers took: from the source, and between hosts."""
        self._late = {True: UNKNOWN_SECONDS, False: UNKNOWN_SECONDS}
        self._cut_off: set[str] = set()
        """Hosts that cannot get something from each of the others."""
        self._held = 0
        """The pieces that one host or more has, or gets in time, at the moment that `next` is asked about."""
        self._turn = 0
        self._source_reaches = True

    @property
    def done(self) -> bool:
        """Whether every host that is left has everything."""
        return all(host.have == self._all for host in self._hosts.values())

    def has_all(self, name: str) -> bool:
        """Whether a host has everything."""
        return self._hosts[name].have == self._all

    def waiting(self, name: str) -> bool:
        """Whether something is on its way to a host."""
        return bool(self._hosts[name].orders)

    def next(self, now: float) -> list[Order]:
        """What is to be begun, and given up, at this moment (seconds of a monotonic clock)."""
        orders = self._give_up(now)
        self._held = 0
        for host in self._hosts.values():
            self._held |= host.have | self._in_time(host, now)
        self._turn += 1
        names = list(self._hosts)
        names = names[self._turn % len(names) :] + names[: self._turn % len(names)] if names else []
        progress = True
        while progress:
            progress = False
            for name in sorted(names, key=lambda each: len(self._hosts[each].orders)):
                order = self._choose(name, now)
                if order is not None:
                    self._begin(order, now)
                    orders.append(order)
                    progress = True
        return orders

    def got(self, name: str, piece: int, now: float) -> None:
        """A host has a piece that it was to get, and its hash is right."""
        if name not in self._hosts or piece not in self._hosts[name].orders:
            return
        origin, began = self._end(name, piece)
        self._hosts[name].have |= 1 << piece
        kind = origin == SOURCE
        self._took[kind] = [*self._took[kind][-REMEMBERED:], now - began]
        self._late[kind] = max(LATE_SECONDS, LATE_TIMES * median(self._took[kind]))

    def failed(self, name: str, piece: int, kind: str) -> str | None:
        """A piece did not come: `kind` is "connect", "transfer", "corrupt" or "cancelled".

        Returns the name of the host that it cannot reach, where this is the first that is known of it.
        """
        host = self._hosts.get(name)
        if host is None or piece not in host.orders:
            return None
        origin = host.orders[piece][0]
        self._end(name, piece)
        host.avoid.add((piece, origin))
        if kind == "cancelled":
            return None
        before = self._broken.get((origin, name), 0)
        self._broken[origin, name] = before + (NO_CONNECTION if kind == "connect" else 1)
        if not before < PATIENCE <= self._broken[origin, name]:
            return None
        self._cut_off.add(name)
        return origin

    def lost(self, name: str) -> None:
        """A host is gone. What was on its way from it is asked for elsewhere, once it has failed or is late."""
        host = self._hosts.pop(name, None)
        if host is not None:
            for origin, _ in host.orders.values():
                self._going[origin] = self._going.get(origin, 1) - 1

    def mute(self, name: str) -> None:
        """A host cannot be called; of the source: it is gone."""
        if name == SOURCE:
            self._source_reaches = False
        self._broken.update({(name, other): PATIENCE for other in self._hosts})
        self._cut_off.update(self._hosts)

    def mend(self, origin: str, name: str) -> None:
        """A pair that did not work does now, by another way."""
        self._broken.pop((origin, name), None)

    def stuck(self) -> list[str]:
        """Hosts that miss pieces which nobody can send them, now or later."""
        return [
            name
            for name, host in self._hosts.items()
            if host.have != self._all and not host.orders and not self._sources_of(name, self._all & ~host.have)
        ]

    def _sources_of(self, name: str, wanted: int) -> list[str]:
        """Those who have, or will have, something that a host wants, and can send it."""
        found = [SOURCE] if self._source_reaches and self._works(SOURCE, name) else []
        return found + [
            other
            for other, host in self._hosts.items()
            if other != name and self._works(other, name) and (host.have | host.coming) & wanted
        ]

    def _works(self, origin: str, name: str) -> bool:
        return self._broken.get((origin, name), 0) < PATIENCE

    def _choose(self, name: str, now: float) -> Order | None:
        """The next transfer to a host: from the source what nobody has yet, else from the least busy what is rare."""
        host = self._hosts[name]
        wanted, slow = self._all & ~host.have & ~host.coming, self._is_slow(host, now)
        if not wanted or len(host.orders) >= (SLOWLY if slow else COMING):
            return None
        pairs = [origin for origin, _ in host.orders.values()]
        may_send = self._source_reaches and self._may(SOURCE, name, pairs, SENDING)
        if may_send and slow:  # what it got first, all others would have to wait for
            may_send = all(self._is_slow(each, now) or each.have == self._all for each in self._hosts.values())
        fresh = self._fresh(name, wanted, now) if may_send else 0
        if fresh:
            return Order(name, self._first(fresh, 0), SOURCE)
        ranks = [
            (self._going[other], (position + self._turn) % len(self._hosts), other)
            for position, (other, its) in enumerate(self._hosts.items())
            if its.have & wanted and other != name and self._may(other, name, pairs, GOING)
        ]
        for _, _, other in sorted(ranks):
            piece = self._rarest(self._hosts[other].have & wanted, name)
            if (piece, other) not in host.avoid or not self._others_have(piece, name, other):
                return Order(name, piece, other)
        return None

    def _may(self, origin: str, name: str, pairs: Sequence[str], most: int) -> bool:
        return self._going[origin] < most and pairs.count(origin) < PAIR and self._works(origin, name)

    def _fresh(self, name: str, wanted: int, now: float) -> int:
        """Pieces that a host can only have from the source: no other has them or is getting them in time."""
        if name not in self._cut_off:
            return wanted & ~self._held
        elsewhere = 0
        for other, host in self._hosts.items():
            if other != name and self._works(other, name):
                elsewhere |= host.have | self._in_time(host, now)
        return wanted & ~elsewhere

    def _in_time(self, host: _Host, now: float) -> int:
        late = sum(1 << piece for piece, (origin, at) in host.orders.items() if self._is_late(origin, at, now))
        return host.coming & ~late

    def _rarest(self, among: int, name: str) -> int:
        """A piece that the fewest have; different hosts look from different ends."""
        twice = once = 0  # those that one or more, and two or more have or get
        for other in self._hosts.values():
            held = (other.have | other.coming) & among
            twice |= once & held
            once |= held
        start = self._pieces * list(self._hosts).index(name) // len(self._hosts)
        return self._first(among & ~twice or among, start)

    def _first(self, among: int, start: int) -> int:
        """The lowest of these pieces from `start` on, else the lowest of all."""
        after = among >> start
        if after:
            return start + (after & -after).bit_length() - 1
        return (among & -among).bit_length() - 1

    def _others_have(self, piece: int, name: str, besides: str) -> bool:
        return any(
            host.have >> piece & 1 and other not in (name, besides) and self._works(other, name)
            for other, host in self._hosts.items()
        )

    def _give_up(self, now: float) -> list[Order]:
        """Transfers that are late, or whose origin is gone, where somebody else could do it."""
        found = []
        for name, host in self._hosts.items():
            for piece, (origin, began) in host.orders.items():
                gone = origin != SOURCE and origin not in self._hosts
                if piece in host.given_up or not (gone or self._is_late(origin, began, now)):
                    continue
                if gone or self._others_have(piece, name, origin):
                    host.given_up.add(piece)
                    found.append(Order(name, piece, origin, cancel=True))
        return found

    def _is_late(self, origin: str, began: float, now: float) -> bool:
        return now - began > self._late[origin == SOURCE]

    def _is_slow(self, host: _Host, now: float) -> bool:
        return any(self._is_late(origin, began, now) for origin, began in host.orders.values())

    def _begin(self, order: Order, now: float) -> None:
        host = self._hosts[order.target]
        host.coming |= 1 << order.piece
        self._held |= 1 << order.piece
        host.orders[order.piece] = order.origin, now
        self._going[order.origin] += 1

    def _end(self, name: str, piece: int) -> tuple[str, float]:
        """A transfer is over; where it came from, and when it began."""
        host = self._hosts[name]
        origin, began = host.orders.pop(piece)
        host.coming &= ~(1 << piece)
        host.given_up.discard(piece)
        self._going[origin] = self._going.get(origin, 1) - 1
        return origin, began


def _bits(pieces: Iterable[int]) -> int:
    found = 0
    for piece in pieces:
        found |= 1 << piece
    return found
