"""Check the data network: addresses, names, and whether every host reaches every other fast enough."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from flagscale_deploy.checks.conditions import (
    environment,
    failed_if,
    no_facts,
    no_plan,
    on,
    one_host,
    passed,
    spanning,
    summary,
)
from flagscale_deploy.checks.connectivity import ALL_PAIRS, unreachable
from flagscale_deploy.checks.speed import bandwidth
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.errors import Fault
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.network import CHECK as NODE_IP
from flagscale_deploy.plan.network import SLOW_SECONDS, is_address, is_loopback, plan_networks
from flagscale_deploy.plan.software import odd_ones
from flagscale_deploy.support.units import counted

UNKNOWN = "no address on the data network is known"
HOST_IP = "VLLM_HOST_IP"


def node_ip(context: Context) -> Iterator[Finding]:
    """Check that `node_ip`, `interface` and a VLLM_HOST_IP of yours belong to the host, and others can reach them."""
    for fault in _misaddressed(context):
        yield Finding(fault.where, fault.problem, "", fault.remedy, failed_if(context.spec is not None))
    misaddressed = {fault.where for fault in _misaddressed(context)}
    for instance in spanning(context):
        for host in instance.hosts:
            if host in context.facts and host not in misaddressed:
                yield from _foreign_host_ip(context, instance, host)


def _foreign_host_ip(context: Context, instance: InstancePlan, host: str) -> Iterator[Finding]:
    """Yield a VLLM_HOST_IP that a host does not have; ranks that Ray starts may do with it."""
    own = {rank.env.get(HOST_IP) for rank in instance.ranks if rank.host == host}
    addresses = {ip_address(address) for seen in context.facts[host].interfaces for address in seen.addresses}
    for value in own or {environment(context, host).get(HOST_IP)}:
        if value and addresses and is_address(value) and (ip_address(value) not in addresses or is_loopback(value)):
            why = "other hosts cannot reach it" if is_loopback(value) else "the host does not have it"
            yield Finding(
                host,
                f"{HOST_IP} is {value}: {why}",
                "an address of the host on the data network",
                f"remove {HOST_IP} from envs and env (it is set for each host), or correct it",
                failed_if(instance.executor != "ray"),
            )


def hostname(context: Context) -> Iterator[Finding]:
    """Check that a host's own name resolves there to an address that others can use: Gloo may announce it."""
    for name, facts in context.facts.items():
        looped = [address for address in facts.hostname_addresses if address.startswith("127.") or address == "::1"]
        nowhere = (
            not facts.hostname_addresses and facts.resolver_seconds < SLOW_SECONDS
        )  # else the resolver is the reason
        if facts.hostname and (looped or nowhere):
            to = f"to {', '.join(looped)}" if looped else "to nothing"
            network = plan_networks([context.inventory[name]], {name: facts})[0][name]
            yield Finding(
                name,
                f"{facts.hostname} resolves {to}",
                f"an address of the host, such as {network.node_ip}",
                f"in /etc/hosts of {name}: {network.node_ip} {facts.hostname}",
                "warning",
            )


def data_network(context: Context) -> Iterator[Finding]:
    """Check that every host accepts connections from every other one, on the planned ports."""
    misaddressed = {fault.where for fault in _misaddressed(context)}
    links = [link for link in context.links or () if not misaddressed & {link.source, link.target}]
    yield from unreachable(context, links)
    good = [link for link in links if not link.failure]
    if good:
        slowest = max(link.seconds for link in good) * 1000
        many = len({link.source for link in links} | {link.target for link in links})
        sampled = f"; each of {many} hosts tested the head, its neighbours and 4 others" if many > ALL_PAIRS else ""
        yield passed(f"{counted(len(good), 'connection')}, at most {slowest:.1f} ms{sampled}")


def mtu(context: Context) -> Iterator[Finding]:
    """Check that the data network's interfaces have the same MTU: larger packets are lost where it is smaller."""
    hosts = [host for host in context.inventory.hosts if host.name in context.working]
    networks, _ = plan_networks(hosts, context.facts)
    sizes, interfaces = {}, {}
    for name, network in networks.items():
        for interface in context.facts[name].interfaces:
            if interface.name == network.interface and interface.mtu > 0 and not network.node_ip.startswith("127."):
                sizes[name], interfaces[name] = str(interface.mtu), interface.name
    odd, usual = odd_ones(sizes)
    for name, size in odd.items():
        cure = on(context, name, "ip", "link", "set", interfaces[name], "mtu", usual, root=True)
        yield Finding(name, f"MTU {size} on {interfaces[name]}", f"{usual}, as on the others", cure)
    if sizes:
        yield passed(summary(sizes.values()))


def infiniband(context: Context) -> Iterator[Finding]:
    """Check that all hosts of an instance have InfiniBand, or none: NCCL waits for those without it."""
    reported: set[str] = set()
    for instance in spanning(context):
        names = [name for name in instance.hosts if name in _with_infiniband_allowed(context)]
        odd, usual = odd_ones({name: "active" if context.facts[name].infiniband else "none" for name in names})
        for name in odd.keys() - reported:
            devices = ", ".join(context.facts[name].infiniband) or "no active port"
            reported.add(name)
            yield Finding(
                name,
                f"InfiniBand: {devices}",
                f"{usual}, as on the other hosts of {instance.name}",
                "activate its port (see ibstat), or set env: {NCCL_IB_DISABLE: '1'} for all hosts",
            )


def _misaddressed(context: Context) -> list[Fault]:
    """Return what is wrong with addresses: the planner's faults, or without a configuration those of the hosts."""
    if context.spec is not None:
        return [fault for fault in context.faults if fault.check == NODE_IP]
    return plan_networks([context.inventory[name] for name in context.facts], context.facts)[1]


def _one_data_host(context: Context) -> str:
    return one_host(context) or (
        "the plan uses one host only" if context.plan and len(context.plan.working) < 2 else ""
    )


def _untried(context: Context) -> str:
    if (why := _one_data_host(context)) or context.links:
        return why
    return (
        "tested with a configuration (-c), or with --network"
        if context.spec is None
        else (no_plan(context) or "the network was not tested")
    )


def _unmeasured(context: Context) -> str:
    if why := _one_data_host(context):
        return why
    measured = any(link.bandwidth is not None for link in context.links or ())
    return "" if measured else "measured with --network only"


def _with_infiniband_allowed(context: Context) -> list[str]:
    """Return the hosts of spanning instances that may use InfiniBand."""
    names = dict.fromkeys(name for instance in spanning(context) for name in instance.hosts if name in context.facts)
    return [name for name in names if environment(context, name).get("NCCL_IB_DISABLE") != "1"]


def _not_spanning(context: Context) -> str:
    return no_plan(context) or ("" if spanning(context) else "no instance spans several hosts")


NETWORK = (
    Check("node-ip", "network", node_ip, "an address of the host", no_facts),
    Check("hostname", "network", hostname, "an address of its own", _one_data_host, "warning"),
    Check("data-network", "network", data_network, "every host reaches every other", _untried, blind=UNKNOWN),
    Check("mtu", "network", mtu, "one size", _one_data_host, blind=UNKNOWN),
    Check(
        "infiniband", "network", infiniband, "on all hosts or on none", _not_spanning, looks_at=_with_infiniband_allowed
    ),
    Check(
        "bandwidth",
        "network",
        bandwidth,
        "at least a third of the other hosts' rate, and fast enough",
        _unmeasured,
        "warning",
        blind="nothing could be measured",
    ),
)
