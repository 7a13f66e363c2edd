"""Which address and interface of a host carry the deployment's traffic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
"""A resolver that takes longer over a name outside is one that hangs (`remote/system/resolver.py` waits no longer)."""
CHECK = "node-ip"
"""What faults of this kind are known as to `check`."""


def plan_networks(hosts: Iterable[Host], facts: Mapping[str, Facts], faults: list[Fault]) -> dict[str, Network]:
    """The data network of each host; what doesn't fit is added to `faults`."""
    networks = {
        host.name: replace(_network(host, facts.get(host.name), faults), resolver_hangs=_hangs(facts.get(host.name)))
        for host in hosts
    }
    looped = [name for name, network in networks.items() if is_loopback(network.node_ip)]
    if looped and len(networks) > 1:
        faults.extend(
            Fault(name, f"its address {networks[name].node_ip} is one that no other host can reach",
                  "set node_ip or interface for it in the inventory", CHECK)
            for name in looped
        )  # fmt: skip
    return networks


def _hangs(facts: Facts | None) -> bool:
    return facts is not None and facts.resolver_seconds >= SLOW_SECONDS


def is_address(text: str) -> bool:
    """Whether a text is an IP address rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def public_address(host: Host, network: Network, bound: Any = None) -> str:
    """What clients outside reach the server by: what it is bound to, the operator's address, or the data network's."""
    if bound and bound not in EVERY_ADDRESS:
        return str(bound)
    if host.connection == "ssh" and host.proxy_jump is None and is_address(host.address):
        return host.address
    return network.node_ip


def _network(host: Host, facts: Facts | None, faults: list[Fault]) -> Network:
    if facts is None:
        return Network(host.node_ip or (LOOPBACK if host.connection == "local" else host.address), host.interface)
    held = [address for each in facts.interfaces for address in each.addresses]
    if host.interface is not None:
        return _by_interface(host, host.interface, facts, faults)
    if host.node_ip is not None:
        if host.node_ip not in held:
            faults.append(Fault(host.name, f"node_ip {host.node_ip} is not an address of it; it has {', '.join(held)}",
                                "correct node_ip in the inventory, or leave it out", CHECK))  # fmt: skip
        return Network(host.node_ip, facts.interface_of(host.node_ip))
    if host.connection == "ssh" and host.address in held and not is_loopback(host.address):
        return Network(host.address, facts.interface_of(host.address))
    address = facts.default_address or next((each for each in held if not is_loopback(each)), LOOPBACK)
    return Network(address, facts.interface_of(address))


def _by_interface(host: Host, interface: str, facts: Facts, faults: list[Fault]) -> Network:
    found = next((each for each in facts.interfaces if each.name == interface), None)
    if found is None or not found.addresses:
        names = ", ".join(each.name for each in facts.interfaces if each.addresses)
        faults.append(Fault(host.name, f"interface {interface} has no address there; {names} have",
                            "correct interface in the inventory", CHECK))  # fmt: skip
        return Network(host.node_ip or host.address, interface)
    address = host.node_ip or next((each for each in found.addresses if "." in each), found.addresses[0])
    if address not in found.addresses:
        faults.append(Fault(host.name, f"node_ip {address} is not on interface {interface}, which has "
                                       f"{', '.join(found.addresses)}", "correct one of the two", CHECK))  # fmt: skip
    return Network(address, interface)


def is_loopback(text: str) -> bool:
    """Whether an address is one that no other host can reach."""
    return text == "localhost" or (is_address(text) and ip_address(text).is_loopback)
