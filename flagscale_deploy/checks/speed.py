"""Judge how fast hosts reach each other, where that was measured (`--network`).

The measurement is one TCP stream for 0.2 s between Python programs: on a sound 10 Gbit/s network it is well above
1 Gbit/s, on a faster one above 5 Gbit/s. The ranks of an instance communicate for every token; below 1 Gbit/s, or with
round trips above 5 ms, they spend most of their time on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median, median_high

from flagscale_deploy.checks.conditions import on, passed, spanning
from flagscale_deploy.checks.connectivity import TOURNAMENT
from flagscale_deploy.checks.types import Context, Finding, Link
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.support.units import counted

SLOW_SHARE = 1 / 3
GBIT = 1e9 / 8
INTERFACE_SHARE, STREAM = 1 / 10, 5 * GBIT
SPANNING_RATE, SPANNING_SECONDS = 1 * GBIT, 5e-3

Pair = tuple[str, str]


def bandwidth(context: Context) -> Iterator[Finding]:
    """Warn about links below a third of the best rate, or too slow for their interface or for an instance.

    That is below a tenth of the interface's speed (5 Gbit/s at most), or within an instance below 1 Gbit/s or above
    5 ms.
    """
    measured = {(link.source, link.target): link for link in context.links or () if link.bandwidth is not None}
    if not measured:
        return
    usual = _usual(measured)
    slow = {pair: link for pair, link in measured.items() if _rate(link) < usual * SLOW_SHARE}
    reported = set(slow)
    for host in _slow_hosts(measured, slow):
        rates = [_rate(link) for pair, link in slow.items() if host in pair]
        slow = {pair: link for pair, link in slow.items() if host not in pair}
        yield Finding(
            host,
            f"{_rate_text(min(rates))} to {_rate_text(max(rates))} with every other host",
            f"{_rate_text(usual)}, as the others reach",
            f"check its cable, port and driver: {on(context, host, 'ip', '-s', 'link')}",
            "warning",
        )
    for (source, target), link in slow.items():
        yield Finding(
            source,
            f"{_rate_text(_rate(link))} to {target}",
            f"{_rate_text(usual)}, as the others reach",
            f"check the switches between {source} and {target}",
            "warning",
        )
    yield from _too_slow(
        context, [link for pair, link in measured.items() if pair not in reported and pair[::-1] not in reported]
    )
    yield passed(_summary(measured))


def _too_slow(context: Context, links: Sequence[Link]) -> Iterator[Finding]:
    """Yield links that are too slow in themselves: of each pair the slower direction, or all pairs in one finding."""
    pairs: dict[Pair, tuple[Link, str]] = {}
    for link in sorted(links, key=_rate):
        least = _least(context, link)
        if least and (link.target, link.source) not in pairs:
            pairs[link.source, link.target] = link, least
    if len(pairs) > 2 and 2 * len(pairs) >= len(links):
        slowest, least = next(iter(pairs.values()))
        problem = f"{_link_text(slowest)} from {slowest.source} to {slowest.target}, and most pairs are as slow"
        cure = "check node_ip and interface of the hosts: is there a faster network?"
        yield Finding("", problem, least, cure, "warning")
        return
    for (source, target), (link, least) in pairs.items():
        cure = f"check the network between {source} and {target}, and interface in the inventory: "
        yield Finding(
            source, f"{_link_text(link)} to {target}", least, cure + on(context, source, "ip", "-s", "link"), "warning"
        )


def _least(context: Context, link: Link) -> str:
    """Return the minimum for a link as text; "" if the link reaches it."""
    speeds = [speed for name in (link.source, link.target) if (speed := _interface_speed(context, name))]
    if speeds and _rate(link) < min(min(speeds) * INTERFACE_SHARE, STREAM):
        return (
            f"{_rate_text(min(min(speeds) * INTERFACE_SHARE, STREAM))}, over an interface of {_rate_text(min(speeds))}"
        )
    together = [instance.name for instance in spanning(context) if {link.source, link.target} <= set(instance.hosts)]
    if context.plan is not None and not together:
        return ""
    purpose = f"for {together[0]}" if together else "for an instance over several hosts"
    if _rate(link) < SPANNING_RATE or (link.latency or 0.0) > SPANNING_SECONDS:
        return f"{_rate_text(SPANNING_RATE)} and {SPANNING_SECONDS * 1e3:.0f} ms {purpose}"
    return ""


def _interface_speed(context: Context, name: str) -> float | None:
    """Return the speed of the data network's interface in bytes per second, None if unknown."""
    facts = context.facts.get(name)
    if facts is None:
        return None
    network = plan_networks([context.inventory[name]], {name: facts})[0][name]
    speed = next((interface.speed for interface in facts.interfaces if interface.name == network.interface), None)
    return speed * 1e6 / 8 if speed is not None and speed > 0 else None


def _usual(measured: dict[Pair, Link]) -> float:
    """Return the median of the best rates of all hosts."""
    best: dict[str, float] = {}
    for (source, _), link in measured.items():
        best[source] = max(best.get(source, 0.0), _rate(link))
    return median_high(best.values())


def _slow_hosts(measured: dict[Pair, Link], slow: dict[Pair, Link]) -> Iterator[str]:
    """Yield hosts with slow links to all others, unless one slow pair is the reason."""
    remaining = dict(slow)
    for host in dict.fromkeys(name for pair in measured for name in pair):
        pairs = [pair for pair in measured if host in pair]
        if len(pairs) > 2 and all(pair in remaining for pair in pairs):
            remaining = {pair: link for pair, link in remaining.items() if host not in pair}
            yield host


def _summary(measured: dict[Pair, Link]) -> str:
    rates = [_rate(link) for link in measured.values()]
    latencies = [link.latency for link in measured.values() if link.latency is not None]
    names = {name for pair in measured for name in pair}
    text = f"at least {_rate_text(min(rates))}, median {_rate_text(median(rates))}"
    text += f"; at most {max(latencies) * 1e3:.2f} ms" if latencies else ""
    return text + (f"; measured on a ring of {counted(len(names), 'host')}" if len(names) > TOURNAMENT else "")


def _link_text(link: Link) -> str:
    return _rate_text(_rate(link)) + (f", {link.latency * 1e3:.1f} ms" if link.latency is not None else "")


def _rate(link: Link) -> float:
    return link.bandwidth or 0.0


def _rate_text(rate: float) -> str:
    return f"{rate * 8 / 1e9:.2f} Gbit/s"
