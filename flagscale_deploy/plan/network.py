"""Find the address and interface of a host that carry the deployment's traffic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Network

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = ("0.0.0.0", "::")
SLOW_SECONDS = 1.0
"""A resolver that takes longer for an external name hangs (`remote/system/resolver.py` waits no longer)."""
CHECK = "node-ip"
"""The check that reports these faults."""


def plan_networks(hosts: Collection[Host], facts: Mapping[str, Facts]) -> tuple[dict[str, Network], list[Fault]]:
    """Return the data network of each host, and what does not fit."""
    networks: dict[str, Network] = {}
    faults: list[Fault] = []
    for host in hosts:
        network, wrong = _network(host, facts.get(host.name))
        networks[host.name] = replace(network, resolver_hangs=_hangs(facts.get(host.name)))
        faults += wrong
    for host in hosts if len(networks) > 1 else ():
        problem = _unreachable(host, networks[host.name].node_ip)
        if problem:
            faults.append(Fault(host.name, problem, "set node_ip or interface for it in the inventory", CHECK))
    return networks, faults


def _unreachable(host: Host, address: str) -> str:
    """Return why other hosts are not to connect to an address, "" where they may."""
    if is_loopback(address):
        return f"its address {address} cannot be reached by other hosts"
    return address_problem(host, address)


def _hangs(facts: Facts | None) -> bool:
    return facts is not None and facts.resolver_seconds >= SLOW_SECONDS


def is_address(text: str) -> bool:
    """Return whether a text is an IP address rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def address_problem(host: Host, address: str) -> str:
    """Return why no other host is told to connect to an address: only the host itself says that it is its own."""
    if address == host.node_ip or (address == host.address and not is_loopback(address)):
        return ""
    if not is_address(address):
        return f"it reports {address!r} for its address"
    ip = ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return f"other hosts are not told to connect to {address}: if it is right, set node_ip in the inventory"
    return ""


def public_address(host: Host, network: Network, bound: Any = None) -> str:
    """Return the server's address for clients: the one it is bound to, the operator's, or the data network's."""
    if bound and bound not in EVERY_ADDRESS:
        return str(bound)
    if host.connection == "ssh" and host.proxy_jump is None and is_address(host.address):
        return host.address
    return network.node_ip


def _network(host: Host, facts: Facts | None) -> tuple[Network, list[Fault]]:
    if facts is None:
        return Network(host.node_ip or (LOOPBACK if host.connection == "local" else host.address), host.interface), []
    if host.interface is not None:
        return _by_interface(host, host.interface, facts)
    addresses = [address for interface in facts.interfaces for address in interface.addresses]
    if host.node_ip is not None:
        problem = f"node_ip {host.node_ip} is not an address of the host, which has {', '.join(addresses)}"
        fault = Fault(host.name, problem, "correct node_ip in the inventory, or remove it", CHECK)
        return _on(facts, host.node_ip), [] if host.node_ip in addresses else [fault]
    if host.connection == "ssh" and host.address in addresses and not is_loopback(host.address):
        return _on(facts, host.address), []
    outside = (address for address in addresses if not is_loopback(address))
    return _on(facts, facts.default_address or next(outside, LOOPBACK)), []


def _on(facts: Facts, address: str) -> Network:
    return Network(address, facts.interface_of(address))


def _by_interface(host: Host, name: str, facts: Facts) -> tuple[Network, list[Fault]]:
    interface = next((interface for interface in facts.interfaces if interface.name == name), None)
    if interface is None or not interface.addresses:
        names = ", ".join(interface.name for interface in facts.interfaces if interface.addresses)
        problem = f"interface {name} has no address on this host; {names} have"
        fault = Fault(host.name, problem, "correct interface in the inventory", CHECK)
        return Network(host.node_ip or host.address, name), [fault]
    ipv4 = (address for address in interface.addresses if "." in address)
    address = host.node_ip or next(ipv4, interface.addresses[0])
    if address in interface.addresses:
        return Network(address, name), []
    problem = f"node_ip {address} is not on interface {name}, which has {', '.join(interface.addresses)}"
    return Network(address, name), [Fault(host.name, problem, "correct node_ip or interface in the inventory", CHECK)]


def is_loopback(text: str) -> bool:
    """Return whether an address is reachable on its own host only."""
    return text == "localhost" or (is_address(text) and ip_address(text).is_loopback)
