"""Schedule which host fetches which piece from which next. Reads no clock and no network: time is an argument.

The source's uplink is the bottleneck, so each piece leaves it once; from then on hosts pass it on. A host fetches the
piece that the fewest hosts have, from the least busy host that has it, so that every link is busy from the first piece
to the last. A transfer that takes too long is cancelled if another host has the piece. With equal links, the last host
is ready little later than a single host would be (tests/unit/push/test_schedule.py simulates it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from flagscale_deploy.remote.messages.push import PieceFailure

SOURCE = ""
"""The name of the source, which has all pieces from the start."""
MOST_TO_HOST, MOST_FROM_HOST, MOST_OF_PAIR = 8, 12, 3
"""The most transfers to one host, from one host, and between two."""
MOST_FROM_SOURCE = 6
LATE_SECONDS, LATE_TIMES = 2.0, 3.0
"""A transfer is late when it takes longer than this, and so many times as long as the median of the last ones."""
LATE_SECONDS_AT_FIRST = 30.0
"""The same while no transfer has ended yet."""
MOST_TO_SLOW_HOST = 2
"""The most transfers to a host whose transfers are late: each of them ends sooner then."""
DURATIONS_KEPT = 64
MOST_FAILURES, FAILED_CONNECTION = 4, 2
"""A pair of hosts with so many failed transfers is not used any more; a failed connection counts as two."""


@dataclass(frozen=True)
class Order:
    """Have `target` get `piece` from `origin`; with `cancel`, no longer."""

    target: str
    piece: int
    origin: str
    cancel: bool = False


@dataclass
class _Host:
    """The state of a host; `have` and `coming` are sets of pieces, as the bits of a number."""

    have: int = 0
    coming: int = 0
    orders: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Where each piece comes from, and since when."""
    cancelled: set[int] = field(default_factory=set)
    avoid: set[tuple[int, str]] = field(default_factory=set)
    """Pieces that failed, with where they were to come from."""


class Schedule:
    """The state of a push. `have`: the pieces that each host has from the start."""

    def __init__(self, pieces: int, have: Mapping[str, Iterable[int]]) -> None:
        self._all = (1 << pieces) - 1
        self._pieces = pieces
        self._hosts = {name: _Host(have=_bits(pieces_there)) for name, pieces_there in have.items()}
        self._outgoing: dict[str, int] = {SOURCE: 0, **dict.fromkeys(have, 0)}
        self._failures: dict[tuple[str, str], int] = {}
        self._durations: dict[bool, list[float]] = {True: [], False: []}
        """Seconds that the last transfers took: from the source (True), and between hosts."""
        self._late = {True: LATE_SECONDS_AT_FIRST, False: LATE_SECONDS_AT_FIRST}
        self._cut_off: set[str] = set()
        """Hosts that at least one other cannot send to."""
        self._held = 0
        """The pieces that at least one host has, or gets in time, as of the last call of `next`."""
        self._turn = 0
        self._source_reaches = True

    @property
    def done(self) -> bool:
        """Return whether every host that is left has every piece."""
        return all(host.have == self._all for host in self._hosts.values())

    def has_all(self, name: str) -> bool:
        """Return whether a host has every piece."""
        return self._hosts[name].have == self._all

    def waiting(self, name: str) -> bool:
        """Return whether a host waits for a piece."""
        return bool(self._hosts[name].orders)

    def next(self, now: float) -> list[Order]:
        """Return the transfers to begin and to cancel now, in seconds of a monotonic clock."""
        orders = self._cancel_late(now)
        self._held = 0
        for host in self._hosts.values():
            self._held |= host.have | self._in_time(host, now)
        self._turn += 1
        names = list(self._hosts)
        names = names[self._turn % len(names) :] + names[: self._turn % len(names)] if names else []
        progress = True
        while progress:
            progress = False
            for name in sorted(names, key=lambda host: len(self._hosts[host].orders)):
                order = self._choose(name, now)
                if order is not None:
                    self._begin(order, now)
                    orders.append(order)
                    progress = True
        return orders

    def mark_received(self, name: str, piece: int, now: float) -> bool:
        """Note that a host has received a piece, with the right hash. Return False for one that was not on its way."""
        if name not in self._hosts or piece not in self._hosts[name].orders:
            return False
        origin, began = self._end(name, piece)
        self._hosts[name].have |= 1 << piece
        from_source = origin == SOURCE
        self._durations[from_source] = [*self._durations[from_source][-DURATIONS_KEPT:], now - began]
        self._late[from_source] = max(LATE_SECONDS, LATE_TIMES * median(self._durations[from_source]))
        return True

    def mark_failed(self, name: str, piece: int, kind: PieceFailure) -> str | None:
        """Note that a piece did not come.

        Return the host that the piece was to come from if this pair of hosts is not used from now on, else None.
        """
        host = self._hosts.get(name)
        if host is None or piece not in host.orders:
            return None
        was_cancelled = kind == "cancelled" and piece in host.cancelled  # a host may not cancel by itself
        origin, _ = self._end(name, piece)
        host.avoid.add((piece, origin))
        if was_cancelled:
            return None
        before = self._failures.get((origin, name), 0)
        self._failures[origin, name] = before + (FAILED_CONNECTION if kind == "connect" else 1)
        if not before < MOST_FAILURES <= self._failures[origin, name]:
            return None
        self._cut_off.add(name)
        return origin

    def mark_lost(self, name: str) -> None:
        """Remove a host. What it was sending is fetched elsewhere once it has failed or is late."""
        host = self._hosts.pop(name, None)
        if host is not None:
            for origin, _ in host.orders.values():
                self._outgoing[origin] = self._outgoing.get(origin, 1) - 1

    def mark_unreachable(self, name: str) -> None:
        """Note that a host accepts no connections (source: it is lost)."""
        if name == SOURCE:
            self._source_reaches = False
        self._failures.update({(name, other): MOST_FAILURES for other in self._hosts})
        self._cut_off.update(self._hosts)

    def mark_reachable(self, origin: str, name: str) -> None:
        """Note that pieces come from one host to another again, by another way."""
        self._failures.pop((origin, name), None)

    def unservable(self) -> list[str]:
        """Return the hosts that lack pieces which no host can send them, now or later."""
        return [
            name
            for name, host in self._hosts.items()
            if host.have != self._all and not host.orders and not self._sources_of(name, self._all & ~host.have)
        ]

    def _sources_of(self, name: str, wanted: int) -> list[str]:
        """Return the hosts that have, or will have, a piece that a host wants, and can send it."""
        source = [SOURCE] if self._source_reaches and self._works(SOURCE, name) else []
        return source + [
            other
            for other, host in self._hosts.items()
            if other != name and self._works(other, name) and (host.have | host.coming) & wanted
        ]

    def _works(self, origin: str, name: str) -> bool:
        return self._failures.get((origin, name), 0) < MOST_FAILURES

    def _choose(self, name: str, now: float) -> Order | None:
        """Return a host's next transfer: from the source what no host has, else a rare piece from the least busy."""
        host = self._hosts[name]
        wanted, slow = self._all & ~host.have & ~host.coming, self._is_slow(host, now)
        if not wanted or len(host.orders) >= (MOST_TO_SLOW_HOST if slow else MOST_TO_HOST):
            return None
        pairs = [origin for origin, _ in host.orders.values()]
        may_send = self._source_reaches and self._may(SOURCE, name, pairs, MOST_FROM_SOURCE)
        if may_send and slow:  # else all others would have to wait for what it gets first
            may_send = all(self._is_slow(other, now) or other.have == self._all for other in self._hosts.values())
        fresh = self._fresh(name, wanted, now) if may_send else 0
        if fresh:
            return Order(name, self._first(fresh, 0), SOURCE)
        ranks = [
            (self._outgoing[other], (position + self._turn) % len(self._hosts), other)
            for position, (other, state) in enumerate(self._hosts.items())
            if state.have & wanted and other != name and self._may(other, name, pairs, MOST_FROM_HOST)
        ]
        for _, _, other in sorted(ranks):
            piece = self._rarest(self._hosts[other].have & wanted, name)
            if (piece, other) not in host.avoid or not self._others_have(piece, name, other):
                return Order(name, piece, other)
        return None

    def _may(self, origin: str, name: str, pairs: Sequence[str], most: int) -> bool:
        return self._outgoing[origin] < most and pairs.count(origin) < MOST_OF_PAIR and self._works(origin, name)

    def _fresh(self, name: str, wanted: int, now: float) -> int:
        """Return the pieces that only the source can send to a host: no other has them or gets them in time."""
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
        """Return a piece that the fewest hosts have; each host begins to search at another piece."""
        twice = once = 0  # the pieces that two or more hosts, and one or more, have or get
        for other in self._hosts.values():
            held = (other.have | other.coming) & among
            twice |= once & held
            once |= held
        start = self._pieces * list(self._hosts).index(name) // len(self._hosts)
        return self._first(among & ~twice or among, start)

    def _first(self, among: int, start: int) -> int:
        """Return the lowest of these pieces from `start` on, else the lowest of all."""
        after = among >> start
        if after:
            return start + (after & -after).bit_length() - 1
        return (among & -among).bit_length() - 1

    def _others_have(self, piece: int, name: str, except_for: str) -> bool:
        return any(
            host.have >> piece & 1 and other not in (name, except_for) and self._works(other, name)
            for other, host in self._hosts.items()
        )

    def _cancel_late(self, now: float) -> list[Order]:
        """Return the cancellations of transfers that are late, or whose origin is lost, if another host can send."""
        cancellations = []
        for name, host in self._hosts.items():
            for piece, (origin, began) in host.orders.items():
                lost = origin != SOURCE and origin not in self._hosts
                if piece in host.cancelled or not (lost or self._is_late(origin, began, now)):
                    continue
                if lost or self._others_have(piece, name, origin):
                    host.cancelled.add(piece)
                    cancellations.append(Order(name, piece, origin, cancel=True))
        return cancellations

    def _is_late(self, origin: str, began: float, now: float) -> bool:
        return now - began > self._late[origin == SOURCE]

    def _is_slow(self, host: _Host, now: float) -> bool:
        return any(self._is_late(origin, began, now) for origin, began in host.orders.values())

    def _begin(self, order: Order, now: float) -> None:
        host = self._hosts[order.target]
        host.coming |= 1 << order.piece
        self._held |= 1 << order.piece
        host.orders[order.piece] = order.origin, now
        self._outgoing[order.origin] += 1

    def _end(self, name: str, piece: int) -> tuple[str, float]:
        """Remove a transfer that has ended; return where it came from, and when it began."""
        host = self._hosts[name]
        origin, began = host.orders.pop(piece)
        host.coming &= ~(1 << piece)
        host.cancelled.discard(piece)
        self._outgoing[origin] = self._outgoing.get(origin, 1) - 1
        return origin, began


def _bits(pieces: Iterable[int]) -> int:
    bits = 0
    for piece in pieces:
        bits |= 1 << piece
    return bits
