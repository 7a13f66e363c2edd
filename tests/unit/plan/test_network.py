from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.facts.model import Facts, Interface
from flagscale_deploy.plan.model import Plan, join_port
from tests.unit.plan.given import OFFLINE, facts, faults_of, host, inventory, model, planned, spec

FACTS = facts("gpu01")


def network(host_facts: Facts | None = FACTS, **settings: Any) -> tuple[str, str | None]:
    """Return the address and interface that gpu01 gets."""
    made = one(host_facts, **settings)
    env = made.instances[0].env
    assert env.get("GLOO_SOCKET_IFNAME") == env.get("NCCL_SOCKET_IFNAME")
    assert made.ray.nodes[0].node_ip == env["VLLM_HOST_IP"]
    return env["VLLM_HOST_IP"], env.get("GLOO_SOCKET_IFNAME")


def one(host_facts: Facts | None = FACTS, **settings: Any) -> Plan:
    hosts = inventory(host("gpu01", gpus=8, **settings))
    return planned(hosts, spec(ray="on"), OFFLINE if host_facts is None else {"gpu01": host_facts})


def faults(**settings: Any) -> list[str]:
    return [fault.problem for fault in faults_of(inventory(host("gpu01", **settings)), spec(), {"gpu01": FACTS})]


def test_the_address_that_ssh_uses_if_the_host_holds_it() -> None:
    assert network() == ("10.0.0.1", "eth0")
    assert network(address="192.168.7.1") == ("192.168.7.1", "ib0")


def test_the_default_routes_address_where_ssh_uses_a_name_or_another_address() -> None:
    assert network(address="gpu01.example.org") == ("10.0.0.1", "eth0")
    assert network(address="203.0.113.7") == ("10.0.0.1", "eth0")


def test_node_ip_is_the_users_choice_and_brings_its_interface() -> None:
    assert network(node_ip="192.168.7.1") == ("192.168.7.1", "ib0")


def test_interface_brings_its_ipv4_address() -> None:
    assert network(interface="ib0") == ("192.168.7.1", "ib0")
    assert network(interface="eth0") == ("10.0.0.1", "eth0")
    assert network(interface="eth0", node_ip="fd00::1") == ("fd00::1", "eth0")


def test_an_interface_with_ipv6_only() -> None:
    changed = facts("gpu01", interfaces=(Interface("eth9", ("fd00::9",)),))
    assert network(changed, interface="eth9") == ("fd00::9", "eth9")


def test_ipv6_stands_in_brackets_before_a_port() -> None:
    assert join_port("fd00::9", 80) == "[fd00::9]:80"
    made = one(interface="eth0", node_ip="fd00::1", address="gpu01.example.org")
    assert made.instances[0].endpoint == "http://[fd00::1]:8000/v1"
    assert made.ray.address == "[fd00::1]:6379"


def test_what_the_host_does_not_have_is_a_fault() -> None:
    assert faults(node_ip="10.9.9.9") == [
        "node_ip 10.9.9.9 is not an address of the host, which has 127.0.0.1, ::1, 10.0.0.1, fd00::1, 192.168.7.1"
    ]
    assert faults(interface="ib7") == ["interface ib7 has no address on this host; lo, eth0, ib0 have"]
    assert faults(interface="ib0", node_ip="10.0.0.1") == [
        "node_ip 10.0.0.1 is not on interface ib0, which has 192.168.7.1"
    ]


def test_an_interface_without_an_address_is_a_fault() -> None:
    changed = facts("gpu01", interfaces=(Interface("ib0"), Interface("eth0", ("10.0.0.1",))))
    (fault,) = faults_of(inventory(host("gpu01", interface="ib0")), spec(), {"gpu01": changed})
    assert fault.problem == "interface ib0 has no address on this host; eth0 have"


@pytest.mark.parametrize("node_ip", ["127.0.0.1", "::1"])
def test_loopback_is_no_address_for_several_hosts(node_ip: str) -> None:
    hosts = inventory(host("gpu01", node_ip=node_ip), "gpu02")
    (fault,) = faults_of(hosts, spec())
    assert fault.where == "gpu01"
    assert fault.problem == f"its address {node_ip} cannot be reached by other hosts"
    assert fault.remedy == "set node_ip or interface for it in the inventory"


@pytest.mark.parametrize(
    "address", ["::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::", "10.0.0.1/x", "x y"]
)
def test_other_hosts_connect_to_no_address_that_leads_them_to_themselves_or_is_none(address: str) -> None:
    """Only the host itself says that the address is its own: a router would send prompts there."""
    lying = facts("gpu01", default_address=address, interfaces=(Interface("eth0", (address,)),))
    for interface in (None, "eth0"):
        hosts = inventory(host("gpu01", address="gpu01.example", interface=interface), "gpu02")
        (fault,) = faults_of(hosts, spec(), {"gpu01": lying, "gpu02": facts("gpu02")})
        assert (fault.where, fault.check) == ("gpu01", "node-ip")
        assert fault.remedy == "set node_ip or interface for it in the inventory"


def test_a_host_of_its_own_may_use_loopback() -> None:
    alone = facts("gpu01", interfaces=(Interface("lo", ("127.0.0.1",)),), default_address=None)
    assert network(alone, connection="local", address="localhost") == ("127.0.0.1", "lo")


def test_a_local_host_beside_others_is_not_known_as_loopback() -> None:
    hosts = inventory(host("gpu01", connection="local", address="127.0.0.1"), "gpu02")
    assert [node.node_ip for node in planned(hosts, spec(ray="on")).ray.nodes] == ["10.0.0.1", "10.0.0.2"]


def test_without_a_probe_the_inventory_is_all_there_is() -> None:
    assert network(None) == ("10.0.0.1", None)
    assert network(None, interface="ib0") == ("10.0.0.1", "ib0")
    assert network(None, node_ip="10.1.1.1") == ("10.1.1.1", None)
    assert network(None, connection="local", address="localhost") == ("127.0.0.1", None)


def test_without_a_default_route_any_address_but_loopback() -> None:
    changed = facts("gpu01", default_address=None)
    assert network(changed, address="gpu01") == ("10.0.0.1", "eth0")


def test_the_users_own_variables_win_the_hosts_last() -> None:
    hosts = inventory(host("gpu01", env={"NCCL_SOCKET_IFNAME": "bond0", "B": "host"}))
    env = planned(hosts, spec(env={"GLOO_SOCKET_IFNAME": "eth7", "B": "spec", "A": "spec"})).instances[0].env
    assert (env["NCCL_SOCKET_IFNAME"], env["GLOO_SOCKET_IFNAME"]) == ("bond0", "eth7")
    assert (env["A"], env["B"]) == ("spec", "host")


@pytest.mark.parametrize(
    ("settings", "args", "endpoint", "local"),
    [
        ({}, {}, "http://10.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ({"node_ip": "192.168.7.1"}, {}, "http://10.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ({"address": "gpu01.lan"}, {}, "http://10.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ({"proxy_jump": "gate", "address": "192.168.7.1"}, {}, "http://192.168.7.1:8000/v1", "http://127.0.0.1:8000"),
        ({}, {"host": "0.0.0.0"}, "http://10.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ({}, {"host": "::"}, "http://10.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ({}, {"host": "192.168.7.1"}, "http://192.168.7.1:8000/v1", "http://192.168.7.1:8000"),
        ({}, {"ssl-certfile": "/c"}, "https://10.0.0.1:8000/v1", "https://127.0.0.1:8000"),
    ],
)
def test_where_clients_and_the_host_itself_reach_the_server(
    settings: dict[str, Any], args: dict[str, Any], endpoint: str, local: str
) -> None:
    made = planned(inventory(host("gpu01", **settings)), spec(model(engine_args=args)))
    assert (made.instances[0].endpoint, made.instances[0].local_url) == (endpoint, local)


def test_where_the_resolver_hangs_nobody_waits_for_it_unless_the_user_has_a_say() -> None:
    slow = facts("gpu01", resolver_seconds=1.0)
    for made in (one(slow), one(slow, env={"RES_OPTIONS": "timeout:3"})):
        scripts = made.scripts["gpu01"]
        wanted = "timeout:3" if made.instances[0].env["RES_OPTIONS"] == "timeout:3" else "'timeout:1 attempts:1'"
        assert f"export RES_OPTIONS={wanted}\n" in scripts["ray_head.sh"]
    assert "RES_OPTIONS" not in one().scripts["gpu01"]["ray_head.sh"]
