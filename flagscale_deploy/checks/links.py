"""Which hosts, of the connections that were tried, can't be reached: one dead host is one finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flagscale_deploy.checks.conditions import on
from flagscale_deploy.checks.model import Finding, Link, Scene

ALL_PAIRS = 64
"""On more hosts each one tries the head, its neighbours in the plan's order, and 4 others."""
TOURNAMENT = 8
"""On more hosts bandwidth is measured around a ring only."""


def unreachable(scene: Scene, links: Sequence[Link]) -> Iterator[Finding]:
    """A finding for each host that could not try, that has no way, that nobody reaches, that reaches nobody; else for
    each target."""
    untried = [each for each in links if each.failure == "not-tried"]
    for link in untried:
        yield Finding(
            link.source,
            link.problem,
            "it can listen and connect",
            f"look at {link.source}: {on(scene, link.source, 'ss', '-ltn')}",
        )
    out = {each.source for each in untried}
    tried = [each for each in links if not out & {each.source, each.target}]
    for source, lost in _wayless(tried).items():
        tried = [each for each in tried if not {(each.source, each.target)} & _both_ways(lost)]
        yield Finding(
            source,
            f"it has no way to {_places(lost)}: {lost[0].problem}",
            "TCP connections over the data network",
            f"a route is missing on {source}: {on(scene, source, 'ip', 'route')}",
        )
    bad = [each for each in tried if each.failure]
    for target in _dead(tried, scene):
        mine = [each for each in bad if each.target == target]
        bad = [each for each in bad if target not in (each.source, each.target)]
        if mine:
            yield _blocked(scene, mine, by_all=_sources(mine) > 1)
    for source in _deaf(tried, bad):
        mine = [each for each in bad if each.source == source]
        bad = [each for each in bad if each.source != source]
        yield Finding(
            source,
            f"it connects to no other host: {mine[0].problem} to {_places(mine)}",
            "TCP connections over the data network",
            f"a firewall for what leaves {source}, or no route: {on(scene, source, 'ip', 'route')}",
        )
    for target in dict.fromkeys(each.target for each in bad):
        mine = [each for each in bad if each.target == target]
        to = {each.port for each in mine}
        alone = _sources(mine) > 1 and all(each.failure for each in tried if each.target == target and each.port in to)
        yield _blocked(scene, mine, by_all=alone)


def _wayless(tried: Sequence[Link]) -> dict[str, list[Link]]:
    """The connections that their source had no way for, by source."""
    found: dict[str, list[Link]] = {}
    for each in tried:
        if each.failure == "no-route":
            found.setdefault(each.source, []).append(each)
    return found


def _both_ways(links: Sequence[Link]) -> set[tuple[str, str]]:
    """Pairs of hosts, and the same the other way round: what has no way there has none for an answer."""
    return {pair for each in links for pair in ((each.source, each.target), (each.target, each.source))}


def _places(links: Sequence[Link]) -> str:
    return ", ".join(f"{each.target} ({each.address}:{each.port}, {each.use})" for each in links[:3])


def _dead(tried: Sequence[Link], scene: Scene) -> list[str]:
    """Hosts that nobody reaches on any port. Of two that don't reach each other, the one that is not the head."""
    targets = dict.fromkeys(each.target for each in tried)
    dead = [name for name in targets if all(each.failure for each in tried if each.target == name)]
    alive = [name for name in targets if name not in dead]
    head = scene.inventory.head.name
    return dead if alive or len(dead) < 2 else [name for name in dead if name != head]


def _deaf(tried: Sequence[Link], bad: Sequence[Link]) -> list[str]:
    """Hosts that reach none of several others."""
    found = []
    for source in dict.fromkeys(each.source for each in bad):
        targets = {each.target for each in tried if each.source == source}
        failed = {each.target for each in bad if each.source == source}
        others = {each.source for each in tried if each.target in failed and not each.failure}
        if (
            len(failed) > 1
            and others
            and all(each.failure for each in tried if each.source == source and each.target in targets)
        ):
            found.append(source)
    return found


def _blocked(scene: Scene, links: Sequence[Link], *, by_all: bool) -> Finding:
    target = links[0].target
    ports = dict.fromkeys(f"{each.address}:{each.port} ({each.use})" for each in links)
    shown = ", ".join(list(ports)[:4])
    fixed = [str(port) for port in dict.fromkeys(each.port for each in links if not each.ephemeral)]
    every = any(each.ephemeral for each in links)
    words = ["iptables", "-I", "INPUT", "-p", "tcp"]
    words += [] if every or not fixed else ["-m", "multiport", "--dports", ",".join(fixed[:15])]
    words += ["-s", ",".join(_addresses(scene, links)), "-j", "ACCEPT"]
    cure = on(scene, target, *words, root=True)
    sources = "no host can" if by_all else ", ".join(dict.fromkeys(each.source for each in links)) + " can't"
    return Finding(
        target,
        f"{sources} connect to {shown}: {links[0].problem}",
        "TCP connections over the data network",
        f"a firewall on {target}? {cure}   (or your firewall's own command)",
    )


def _addresses(scene: Scene, links: Sequence[Link]) -> list[str]:
    """The sources' addresses in the data network, as the links to them have it, or by the inventory."""
    known = {each.target: each.address for each in scene.links or ()}
    sources = dict.fromkeys(each.source for each in links)
    return [known.get(source, scene.inventory[source].address) for source in sources]


def _sources(links: Sequence[Link]) -> int:
    return len({each.source for each in links})
