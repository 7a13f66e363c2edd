"""Judge which hosts cannot be reached, of the connections that were tried: a dead host is one finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flagscale_deploy.checks.conditions import on
from flagscale_deploy.checks.types import Context, Finding, Link

ALL_PAIRS = 64
"""With more hosts, each one tries the head, its neighbours in the plan's order, and 4 others."""
TOURNAMENT = 8
"""With more hosts, bandwidth is measured around a ring only."""
EXPECTED = "TCP connections over the data network"


def unreachable(context: Context, links: Sequence[Link]) -> Iterator[Finding]:
    """Yield a finding for each host that could not try, has no route, is not reached, or reaches no other.

    Connections that fail otherwise are a finding for each target.
    """
    untried = [link for link in links if link.failure == "not-tried"]
    for link in untried:
        cure = f"check {link.source}: {on(context, link.source, 'ss', '-ltn')}"
        yield Finding(link.source, link.problem, "it can listen and connect", cure)
    excluded = {link.source for link in untried}
    tried = [link for link in links if not excluded & {link.source, link.target}]
    for source, routeless in _routeless(tried).items():
        tried = [link for link in tried if (link.source, link.target) not in _both_ways(routeless)]
        cure = f"a route is missing on {source}: {on(context, source, 'ip', 'route')}"
        yield Finding(source, f"no route to {_targets(routeless)}: {routeless[0].problem}", EXPECTED, cure)
    failed = [link for link in tried if link.failure]
    for target in _dead(tried, context):
        to_target = [link for link in failed if link.target == target]
        failed = [link for link in failed if target not in (link.source, link.target)]
        if to_target:
            yield _blocked(context, to_target, by_all=_count_sources(to_target) > 1)
    for source in _isolated(tried, failed):
        from_source = [link for link in failed if link.source == source]
        failed = [link for link in failed if link.source != source]
        cure = f"an outgoing firewall on {source}, or no route: {on(context, source, 'ip', 'route')}"
        problem = f"cannot connect to any other host: {_targets(from_source)}: {from_source[0].problem}"
        yield Finding(source, problem, EXPECTED, cure)
    for target in dict.fromkeys(link.target for link in failed):
        to_target = [link for link in failed if link.target == target]
        ports = {link.port for link in to_target}
        same_ports = [link for link in tried if link.target == target and link.port in ports]
        by_all = _count_sources(to_target) > 1 and all(link.failure for link in same_ports)
        yield _blocked(context, to_target, by_all=by_all)


def _routeless(tried: Sequence[Link]) -> dict[str, list[Link]]:
    """Return the connections for which the source's own kernel has no route, by source."""
    by_source: dict[str, list[Link]] = {}
    for link in tried:
        if link.failure == "no-route":
            by_source.setdefault(link.source, []).append(link)
    return by_source


def _both_ways(links: Sequence[Link]) -> set[tuple[str, str]]:
    """Return the links' pairs of hosts in both directions: without a route, replies do not arrive either."""
    return {pair for link in links for pair in ((link.source, link.target), (link.target, link.source))}


def _targets(links: Sequence[Link]) -> str:
    return ", ".join(f"{link.target} ({link.address}:{link.port}, {link.use})" for link in links[:3])


def _dead(tried: Sequence[Link], context: Context) -> list[str]:
    """Return the hosts that none reaches on any port; of two that do not reach each other, the one beside the head."""
    targets = dict.fromkeys(link.target for link in tried)
    dead = [name for name in targets if all(link.failure for link in tried if link.target == name)]
    alive = [name for name in targets if name not in dead]
    head = context.inventory.head.name
    return dead if alive or len(dead) < 2 else [name for name in dead if name != head]


def _isolated(tried: Sequence[Link], failed: Sequence[Link]) -> list[str]:
    """Return the hosts that reach none of several others, which are reached by somebody else."""
    isolated = []
    for source in dict.fromkeys(link.source for link in failed):
        from_source = [link for link in tried if link.source == source]
        targets = {link.target for link in failed if link.source == source}
        reached = any(link.target in targets and not link.failure for link in tried)
        if len(targets) > 1 and reached and all(link.failure for link in from_source):
            isolated.append(source)
    return isolated


def _blocked(context: Context, links: Sequence[Link], *, by_all: bool) -> Finding:
    """Return the finding for a target that some hosts, or all, cannot connect to."""
    target = links[0].target
    ports = dict.fromkeys(f"{link.address}:{link.port} ({link.use})" for link in links)
    sources = "no host can" if by_all else f"{', '.join(dict.fromkeys(link.source for link in links))} cannot"
    return Finding(
        target,
        f"{sources} connect to {', '.join(list(ports)[:4])}: {links[0].problem}",
        EXPECTED,
        f"a firewall on {target}? {_open_ports(context, target, links)}   (or your firewall's own command)",
    )


def _open_ports(context: Context, target: str, links: Sequence[Link]) -> str:
    """Return a command that has the target accept these connections: all ports if one of theirs is ephemeral."""
    ports = [str(port) for port in dict.fromkeys(link.port for link in links)]
    every_port = any(link.ephemeral for link in links)
    words = ["iptables", "-I", "INPUT", "-p", "tcp"]
    words += [] if every_port else ["-m", "multiport", "--dports", ",".join(ports[:15])]
    words += ["-s", ",".join(_addresses(context, links)), "-j", "ACCEPT"]
    return on(context, target, *words, root=True)


def _addresses(context: Context, links: Sequence[Link]) -> list[str]:
    """Return the sources' addresses in the data network, as the links to them have it, or by the inventory."""
    addresses = {link.target: link.address for link in context.links or ()}
    sources = dict.fromkeys(link.source for link in links)
    return [addresses.get(source, context.inventory[source].address) for source in sources]


def _count_sources(links: Sequence[Link]) -> int:
    return len({link.source for link in links})
