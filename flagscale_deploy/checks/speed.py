"""How fast hosts reach each other, where that was measured (`--network`).

Measured is one TCP stream for 0.2 s between programs in Python: on a sound network it is well above a tenth of
10 Gbit/s, and on a faster one above 5 Gbit/s. The ranks of an instance speak to each other for every token; below
1 Gbit/s, or with round trips of more than 5 ms, they do little else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median, median_high

from flagscale_deploy.checks.conditions import on, passed, spanning
from flagscale_deploy.checks.links import TOURNAMENT
from flagscale_deploy.checks.model import Finding, Link, Scene
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.support.units import counted

SLOW_SHARE = 1 / 3
GBIT = 1e9 / 8
INTERFACE_SHARE, STREAM = 1 / 10, 5 * GBIT
SPANNING_RATE, SPANNING_SECONDS = 1 * GBIT, 5e-3

Pair = tuple[str, str]


def bandwidth(scene: Scene) -> Iterator[Finding]:
    """Whether hosts are about as fast as the others, and fast enough: told are less than a third of what hosts reach at
    best, than a tenth of their interface's speed (or 5 Gbit/s), and within an instance than 1 Gbit/s or over 5 ms."""
    measured = {(each.source, each.target): each for each in scene.links or () if each.bandwidth is not None}
    if not measured:
        return
    usual = _usual(measured)
    slow = {pair: link for pair, link in measured.items() if _rate(link) < usual * SLOW_SHARE}
    told = set(slow)
    for host in _slow_hosts(measured, slow):
        rates = [_rate(link) for pair, link in slow.items() if host in pair]
        slow = {pair: link for pair, link in slow.items() if host not in pair}
        yield Finding(
            host,
            f"{_words(min(rates))} to {_words(max(rates))} with every other host",
            f"{_words(usual)}, as the others reach",
            f"look at its cable, port and driver: {on(scene, host, 'ip', '-s', 'link')}",
            "warning",
        )
    for (source, target), link in slow.items():
        yield Finding(
            source,
            f"{_words(_rate(link))} to {target}",
            f"{_words(usual)}, as the others reach",
            f"look at the switches between {source} and {target}",
            "warning",
        )
    yield from _too_slow(
        scene, [link for pair, link in measured.items() if pair not in told and pair[::-1] not in told]
    )
    yield passed(_summary(measured))


def _too_slow(scene: Scene, links: Sequence[Link]) -> Iterator[Finding]:
    """What is slow by itself: of each pair of hosts the slower way, or all pairs in one where none is fast enough."""
    pairs: dict[Pair, tuple[Link, str]] = {}
    for link in sorted(links, key=_rate):
        least = _least(scene, link)
        if least and (link.target, link.source) not in pairs:
            pairs[link.source, link.target] = link, least
    if len(pairs) > 2 and 2 * len(pairs) >= len(links):
        slowest, least = next(iter(pairs.values()))
        found = f"{_told(slowest)} from {slowest.source} to {slowest.target}, and no pair of hosts is faster by much"
        yield Finding(
            "", found, least, "look at node_ip and interface of the hosts: is there a faster network?", "warning"
        )
        return
    for (source, target), (link, least) in pairs.items():
        cure = f"look at the network between {source} and {target}, and at interface in the inventory: "
        yield Finding(
            source, f"{_told(link)} to {target}", least, cure + on(scene, source, "ip", "-s", "link"), "warning"
        )


def _least(scene: Scene, link: Link) -> str:
    """What would be enough, in words; "" where it is."""
    speeds = [speed for name in (link.source, link.target) if (speed := _interface_speed(scene, name))]
    if speeds and _rate(link) < min(min(speeds) * INTERFACE_SHARE, STREAM):
        return f"{_words(min(min(speeds) * INTERFACE_SHARE, STREAM))}, over an interface of {_words(min(speeds))}"
    together = [each.name for each in spanning(scene) if {link.source, link.target} <= set(each.hosts)]
    if scene.plan is not None and not together:
        return ""
    purpose = f"for {together[0]}" if together else "for an instance over several hosts"
    if _rate(link) < SPANNING_RATE or (link.latency or 0.0) > SPANNING_SECONDS:
        return f"{_words(SPANNING_RATE)} and {SPANNING_SECONDS * 1e3:.0f} ms {purpose}"
    return ""


def _interface_speed(scene: Scene, name: str) -> float | None:
    """Bytes a second of the data network's interface, where the host told it."""
    facts = scene.facts.get(name)
    if facts is None:
        return None
    network = plan_networks([scene.inventory[name]], {name: facts})[0][name]
    speed = next((each.speed for each in facts.interfaces if each.name == network.interface), None)
    return speed * 1e6 / 8 if speed is not None and speed > 0 else None


def _usual(measured: dict[Pair, Link]) -> float:
    """What hosts reach at best, the middle of them."""
    best: dict[str, float] = {}
    for (source, _), link in measured.items():
        best[source] = max(best.get(source, 0.0), _rate(link))
    return median_high(best.values())


def _slow_hosts(measured: dict[Pair, Link], slow: dict[Pair, Link]) -> Iterator[str]:
    """Hosts of which every pair is slow, where that is no matter of a single pair."""
    left = dict(slow)
    for host in dict.fromkeys(name for pair in measured for name in pair):
        pairs = [pair for pair in measured if host in pair]
        if len(pairs) > 2 and all(pair in left for pair in pairs):
            left = {pair: link for pair, link in left.items() if host not in pair}
            yield host


def _summary(measured: dict[Pair, Link]) -> str:
    rates = [_rate(link) for link in measured.values()]
    late = [link.latency for link in measured.values() if link.latency is not None]
    names = {name for pair in measured for name in pair}
    words = f"{_words(min(rates))} at least, {_words(median(rates))} in the middle"
    words += f"; {max(late) * 1e3:.2f} ms at most" if late else ""
    return words + (f"; measured on a ring of {counted(len(names), 'host')}" if len(names) > TOURNAMENT else "")


def _told(link: Link) -> str:
    return _words(_rate(link)) + (f", {link.latency * 1e3:.1f} ms" if link.latency is not None else "")


def _rate(link: Link) -> float:
    return link.bandwidth or 0.0


def _words(rate: float) -> str:
    return f"{rate * 8 / 1e9:.2f} Gbit/s"
