"""The data network: addresses, names, and whether every host reaches every other as fast as the others do."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median, median_high

from flagscale_deploy.checks.ground import (
    SLOW_SECONDS,
    counted,
    environment,
    from_planner,
    no_answer,
    no_plan,
    on,
    one_host,
    passed,
    spanning,
    summary,
)
from flagscale_deploy.checks.links import unreachable
from flagscale_deploy.checks.model import Check, Finding, Link, Scene
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.plan.software import odd_ones

SLOW_SHARE = 1 / 3


def node_ip(scene: Scene) -> Iterator[Finding]:
    """Whether `node_ip` and `interface` of the inventory are the host's, and an address that others can reach."""
    yield from from_planner(scene, "node-ip")


def hostname(scene: Scene) -> Iterator[Finding]:
    """Whether a host's own name resolves there, and not to a loopback address: Gloo may offer it to the others."""
    for name, facts in scene.facts.items():
        looped = [address for address in facts.hostname_addresses if address.startswith("127.") or address == "::1"]
        nowhere = not facts.hostname_addresses and facts.resolver_seconds < SLOW_SECONDS  # else that is why
        if facts.hostname and (looped or nowhere):
            to = f"to {', '.join(looped)}" if looped else "to nothing"
            network = plan_networks([scene.inventory[name]], {name: facts}, [])[name]
            yield Finding(
                name,
                f"{facts.hostname} resolves {to}",
                f"an address of its own, as {network.node_ip}",
                f"in /etc/hosts of {name}: {network.node_ip} {facts.hostname}",
                "warning",
            )


def data_network(scene: Scene) -> Iterator[Finding]:
    """Whether every host takes connections from every other, on the ports that will be used."""
    misaddressed = {fault.where for fault in scene.faults if fault.check == "node-ip"}
    links = [each for each in scene.links or () if not misaddressed & {each.source, each.target}]
    yield from unreachable(scene, links)
    good = [each for each in links if not each.problem]
    if good:
        slowest = max(each.seconds for each in good) * 1000
        yield passed(f"{counted(len(good), 'connection')}, the slowest took {slowest:.1f} ms")


def mtu(scene: Scene) -> Iterator[Finding]:
    """Whether the interfaces of the data network have one MTU: larger packets vanish where it is smaller."""
    hosts = [host for host in scene.inventory.hosts if host.name in scene.working]
    networks = plan_networks(hosts, scene.facts, [])
    sizes, interfaces = {}, {}
    for name, network in networks.items():
        for each in scene.facts[name].interfaces:
            if each.name == network.interface and each.mtu > 0 and not network.node_ip.startswith("127."):
                sizes[name], interfaces[name] = str(each.mtu), each.name
    odd, usual = odd_ones(sizes)
    for name, found in odd.items():
        cure = on(scene, name, "ip", "link", "set", interfaces[name], "mtu", usual, root=True)
        yield Finding(name, f"MTU {found} on {interfaces[name]}", f"{usual}, as on the others", cure)
    if sizes:
        yield passed(summary(sizes.values()))


def infiniband(scene: Scene) -> Iterator[Finding]:
    """Whether all hosts of an instance have InfiniBand, or none: NCCL waits for those that have not."""
    told: set[str] = set()
    for instance in spanning(scene):
        names = [name for name in instance.hosts if name in scene.facts]
        names = [name for name in names if environment(scene, name).get("NCCL_IB_DISABLE") != "1"]
        odd, usual = odd_ones({name: "active" if scene.facts[name].infiniband else "none" for name in names})
        for name in odd.keys() - told:
            found = ", ".join(scene.facts[name].infiniband) or "no active port"
            told.add(name)
            yield Finding(
                name,
                f"InfiniBand: {found}",
                f"{usual}, as on the others of {instance.name}",
                "bring its port up (ibstat), or set env: {NCCL_IB_DISABLE: '1'} for all hosts",
            )


def bandwidth(scene: Scene) -> Iterator[Finding]:
    """Whether pairs of hosts are about as fast as the others: a third of what hosts reach at best is told."""
    measured = {(each.source, each.target): each for each in scene.links or () if each.bandwidth is not None}
    if not measured:
        return
    best: dict[str, float] = {}
    for (source, _), link in measured.items():
        best[source] = max(best.get(source, 0.0), _rate(link))
    usual = median_high(best.values())
    slow = {pair: link for pair, link in measured.items() if _rate(link) < usual * SLOW_SHARE}
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
    rates = [_rate(link) for link in measured.values()]
    late = [link.latency for link in measured.values() if link.latency is not None]
    words = f"{_words(min(rates))} at least, {_words(median(rates))} in the middle"
    yield passed(words + (f"; {max(late) * 1e3:.2f} ms at most" if late else ""))


def _slow_hosts(measured: dict[tuple[str, str], Link], slow: dict[tuple[str, str], Link]) -> Iterator[str]:
    """Hosts of which every pair is slow, where that is no matter of a single pair."""
    left = dict(slow)
    for host in dict.fromkeys(name for pair in measured for name in pair):
        pairs = [pair for pair in measured if host in pair]
        if len(pairs) > 2 and all(pair in left for pair in pairs):
            left = {pair: link for pair, link in left.items() if host not in pair}
            yield host


def _rate(link: Link) -> float:
    return link.bandwidth or 0.0


def _words(rate: float) -> str:
    return f"{rate * 8 / 1e9:.2f} Gbit/s"


def _one_data_host(scene: Scene) -> str:
    return one_host(scene) or ("the plan needs one host" if scene.plan and len(scene.plan.working) < 2 else "")


def _untried(scene: Scene) -> str:
    return _one_data_host(scene) or no_plan(scene) or ("" if scene.links else "the network was not tried")


def _unmeasured(scene: Scene) -> str:
    if why := _one_data_host(scene):
        return why
    measured = any(each.bandwidth is not None for each in scene.links or ())
    return "" if measured else "measured with --network only"


def _not_spanning(scene: Scene) -> str:
    return no_plan(scene) or ("" if spanning(scene) else "no instance is over several hosts")


NETWORK = (
    Check("node-ip", "network", node_ip, "an address of the host", no_answer),
    Check("hostname", "network", hostname, "an address of its own", _one_data_host, "warning"),
    Check("data-network", "network", data_network, "every host reaches every other", _untried),
    Check("mtu", "network", mtu, "one size", _one_data_host),
    Check("infiniband", "network", infiniband, "on all hosts or on none", _not_spanning),
    Check("bandwidth", "network", bandwidth, "a third of what the others reach", _unmeasured, "warning"),
)
