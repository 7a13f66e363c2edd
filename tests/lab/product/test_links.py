"""The data network of real hosts: what is tried, what a firewall does to it, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flagscale_deploy.checks.types import Link
from flagscale_deploy.deploy.network_test import DATA, RAY, try_links
from flagscale_deploy.deploy.probe_hosts import facts_of, observe
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.transport.fleet import Fleet
from tests.lab import Host, Lab
from tests.unit.plan.given import model, planned, spec

SYN = "match ip protocol 6 0xff match u8 0x02 0x12 at 33"


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(hosts=4, gpus=2)


@pytest.fixture(scope="module")
def inventory_file(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.inventory(tmp_path_factory.mktemp("links") / "hosts.yaml")


@pytest.fixture(scope="module")
def fleet(inventory_file: Path) -> Iterator[Fleet]:
    with Fleet(load_inventory(inventory_file).hosts) as lab_fleet:
        yield lab_fleet


@pytest.fixture(scope="module")
def facts(fleet: Fleet) -> dict[str, Facts]:
    """As the hosts are, but for the software, which these have no use for."""
    return {
        name: replace(host_facts, ray="2.60.0", vllm="0.32.0") for name, host_facts in facts_of(observe(fleet)).items()
    }


@pytest.fixture(scope="module")
def plan(inventory_file: Path, facts: dict[str, Facts]) -> Plan:
    """One instance over all four hosts, its head on node1."""
    return planned(load_inventory(inventory_file), spec(model(tp=8, port=4567)), facts)


def bad(links: Sequence[Link]) -> set[tuple[str, str, str, str]]:
    return {(link.source, link.target, link.use, link.problem) for link in links if link.failure}


def listening(host: Host) -> str:
    return host.run("ss -Htln").stdout


@pytest.fixture
def silent(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Make a host silently drop connections from another (to one of its ports) until the test's end."""

    def drop(at: Host, source: Host, port: int | None = None) -> None:
        to_port = f"match ip dport {port} 0xffff" if port else ""
        at.run(
            "ip link add sink type veth peer name drain; ip link set sink up; ip link set drain up\n"
            "tc qdisc add dev eth0 ingress || exit 1\n"
            f"tc filter add dev eth0 parent ffff: protocol ip u32 match ip src {source.address}/32 {SYN} {to_port}"
            " action mirred egress redirect dev sink"
        )
        request.addfinalizer(lambda: at.run("tc qdisc del dev eth0 ingress; ip link del sink") and None)

    return drop


def test_four_hosts_reach_each_other_and_the_head(lab: Lab, fleet: Fleet, plan: Plan, facts: dict[str, Facts]) -> None:
    before = [listening(host) for host in lab.hosts]
    links = try_links(fleet, plan, facts)
    assert bad(links) == set()
    assert len([link for link in links if link.use == DATA]) == 12
    assert [(link.target, link.port) for link in links if link.use == RAY] == [("node1", 6379)] * 3
    assert {link.address for link in links} == {host.address for host in lab.hosts}
    assert [listening(host) for host in lab.hosts] == before


def test_packets_that_vanish_one_way_are_found_on_exactly_that_way(
    lab: Lab, fleet: Fleet, plan: Plan, facts: dict[str, Facts], silent: Callable[..., None]
) -> None:
    silent(lab.hosts[2], lab.hosts[1])
    began = time.monotonic()
    links = try_links(fleet, plan, facts)
    assert time.monotonic() - began < 20
    assert bad(links) == {("node2", "node3", DATA, "timed out")}


def test_a_closed_ray_port_is_told_from_a_closed_host(
    lab: Lab, fleet: Fleet, plan: Plan, facts: dict[str, Facts], silent: Callable[..., None]
) -> None:
    silent(lab.hosts[0], lab.hosts[3], plan.ray.port)
    assert bad(try_links(fleet, plan, facts)) == {("node4", "node1", RAY, "timed out")}


def test_a_host_without_a_route_is_named_with_every_peer(
    lab: Lab, fleet: Fleet, plan: Plan, facts: dict[str, Facts]
) -> None:
    host, far = lab.hosts[3], lab.hosts[1]
    host.run(f"ip route add unreachable {far.address}/32")
    try:
        links = bad(try_links(fleet, plan, facts))
    finally:
        host.run(f"ip route del unreachable {far.address}/32")
    assert links == {
        ("node4", "node2", DATA, "No route to host"),
        ("node2", "node4", DATA, "timed out"),  # the answers find no way back
    }


def test_what_listens_at_the_heads_address_elsewhere_is_not_taken_for_it(
    lab: Lab, fleet: Fleet, plan: Plan, facts: dict[str, Facts]
) -> None:
    """node2 has the head's address as well: a copied machine, or a virtual address that went astray."""
    host, head = lab.hosts[1], lab.hosts[0]
    host.run(f"ip addr add {head.address}/32 dev lo")
    server = (
        "import socket;s=socket.create_server(('%s',%d));open('/tmp/up','w');"
        "c=s.accept()[0];c.recv(9);c.sendall(b'220 hello');c.close()"
    )
    host.run(
        f'setsid python3 -c "{server % (head.address, plan.ray.port)}" >/dev/null 2>&1 </dev/null & '
        "until test -e /tmp/up; do sleep 0.02; done"
    )
    try:
        links = bad(try_links(fleet, plan, facts))
    finally:
        host.run(f"ip addr del {head.address}/32 dev lo; rm /tmp/up")
    assert ("node2", "node1", RAY, "something else answers there") in links
    assert {(source, target) for source, target, _use, _problem in links} <= {("node2", "node1"), ("node1", "node2")}


def test_a_slow_link_shows_in_the_bandwidth_of_its_pairs_only(
    lab: Lab, fleet: Fleet, plan: Plan, facts: dict[str, Facts]
) -> None:
    slow = lab.hosts[2]
    slow.rate(100)
    try:
        began = time.monotonic()
        links = [link for link in try_links(fleet, plan, facts, measure=True) if link.use == DATA]
        took = time.monotonic() - began
    finally:
        slow.rate(None)
    assert took < 30
    assert bad(links) == set()
    speeds = {(link.source, link.target): (link.bandwidth or 0) * 8 / 1e6 for link in links}
    through = {pair: speed for pair, speed in speeds.items() if slow.name in pair}
    others = {pair: speed for pair, speed in speeds.items() if slow.name not in pair}
    assert all(50 < speed < 130 for speed in through.values()), through
    assert all(speed > 400 for speed in others.values()), others
    assert all(link.latency is not None and 0 < link.latency < 0.2 for link in links)
