"""A network in which transfers share links as TCP does, driven by the product's schedule, without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flagscale_deploy.push.schedule import SOURCE, Schedule

Link = Callable[[str], float]


@dataclass
class Simulated:
    """What a push came to: when each host had everything (in pieces' times), and how often the source sent a piece."""

    ready: dict[str, float] = field(default_factory=dict)
    sent: int = 0
    moved: int = 0
    stuck: list[str] = field(default_factory=list)


def simulate(
    pieces: int,
    hosts: Iterable[str],
    *,
    have: Mapping[str, Iterable[int]] | None = None,
    speed: Mapping[str, float] | None = None,
    dies: Mapping[str, float] | None = None,
    unreachable: Iterable[tuple[str, str]] = (),
    delay: float = 0.0,
) -> Simulated:
    """Every link carries one piece a second each way (`speed`: a host's), shared evenly by what goes over it.

    `dies`: when a host is gone; `unreachable`: (origin, target) that don't work. `delay`: between a piece's arrival and
    the next order.
    """
    names = list(hosts)
    schedule = Schedule(pieces, {name: (have or {}).get(name, ()) for name in names})
    speeds, dead = speed or {}, dict(dies or {})
    left: dict[tuple[str, int, str], float] = {}
    starting: list[tuple[float, tuple[str, int, str]]] = []
    result, now = Simulated(), 0.0
    while not schedule.done and now < 100 * pieces + 1000:
        for order in schedule.next(now):
            key = order.target, order.piece, order.origin
            if order.cancel:
                left.pop(key, None)
                starting = [(began, other) for began, other in starting if other != key]
                schedule.mark_failed(order.target, order.piece, "cancelled")
            elif (order.origin, order.target) in unreachable:
                schedule.mark_failed(order.target, order.piece, "connect")
            else:
                starting.append((now + delay, key))
                result.sent += order.origin == SOURCE
        for began, key in [(began, key) for began, key in starting if began <= now]:
            starting.remove((began, key))
            left[key] = 1.0
        result.stuck = schedule.unservable()
        if result.stuck and not left and not starting:
            break
        rates = _rates(left, lambda name: speeds.get(name, 1.0))
        steps = [left[key] / rates[key] for key in left if rates[key] > 0]
        steps += [at - now for at, _ in starting] + [at - now for at in dead.values()]
        step = max(1e-9, min(steps, default=1.0))
        now += step
        for key in list(left):
            left[key] -= rates[key] * step
            if left[key] <= 1e-9:
                del left[key]
                result.moved += 1
                schedule.mark_received(key[0], key[1], now)
                if schedule_has(schedule, key[0]):
                    result.ready.setdefault(key[0], now)
        for name in [name for name, at in dead.items() if at <= now]:
            del dead[name]
            schedule.mark_lost(name)
            for key in [key for key in left if name in (key[0], key[2])]:
                del left[key]
                schedule.mark_failed(key[0], key[1], "transfer")
            starting = [(began, key) for began, key in starting if name not in (key[0], key[2])]
    return result


def schedule_has(schedule: Schedule, name: str) -> bool:
    return schedule.has_all(name)


def _rates(left: Iterable[tuple[str, int, str]], speed: Link) -> dict[tuple[str, int, str], float]:
    """Max-min fair: the link that gives its transfers the least is filled first (water filling)."""
    waiting = set(left)
    room = {}
    for target, _, origin in waiting:
        room["in", target], room["out", origin] = speed(target), speed(origin)
    rates: dict[tuple[str, int, str], float] = {}
    while waiting:
        over = {link: [key for key in waiting if link in (("in", key[0]), ("out", key[2]))] for link in room}
        link, keys = min(
            ((link, keys) for link, keys in over.items() if keys), key=lambda pair: room[pair[0]] / len(pair[1])
        )
        share = room[link] / len(keys)
        for key in keys:
            rates[key] = share
            waiting.remove(key)
            room["in", key[0]] -= share
            room["out", key[2]] -= share
        del room[link]
    return rates
