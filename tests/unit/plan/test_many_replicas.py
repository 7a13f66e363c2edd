"""Thousands of replicas are planned in seconds: a file of three lines asks for them."""

from __future__ import annotations

import time

import pytest

from flagscale_deploy.config.spec import PoolSpec
from flagscale_deploy.inventory.model import Host, Inventory
from tests.unit.plan.given import OFFLINE, inventory, model, planned, seen, spec, taken

SECONDS = 8.0
"""Processor time; it took 0.5 s, and 20 s where each replica was compared with all others on each host."""
ONE = Inventory((Host("gpu01", "10.0.0.1", gpus=9999),), {}, "hosts.yaml")
MANY = inventory(*(Host(f"gpu{number}", f"10.0.{number // 250}.{number % 250}", gpus=8) for number in range(250)))


@pytest.mark.parametrize("hosts", [ONE, MANY], ids=["one host", "250 hosts"])
@pytest.mark.parametrize("replicas", [2000, "auto"])
def test_thousands_of_replicas_are_planned_in_seconds(hosts: Inventory, replicas: int | str) -> None:
    if replicas == "auto" and hosts is ONE:
        hosts = Inventory((Host("gpu01", "10.0.0.1", gpus=2000),), {}, "hosts.yaml")
    began = time.process_time()
    made = planned(hosts, spec(model(replicas=replicas), ray="off"), OFFLINE)
    assert time.process_time() - began < SECONDS
    assert len(made.instances) == 2000
    assert len({(instance.driver, instance.port) for instance in made.instances}) == 2000
    counts = [sum(instance.driver == host.name for instance in made.instances) for host in hosts.hosts[:3]]
    assert counts == [2000 // len(hosts.hosts)] * len(counts)


def test_thousands_of_engines_in_pools_are_planned_in_seconds() -> None:
    pool = PoolSpec(replicas=1000, where="qwen.yaml: pool")
    began = time.process_time()
    made = planned(ONE, spec(model(prefill=pool, decode=pool), ray="off"), OFFLINE)
    assert time.process_time() - began < SECONDS
    assert len(made.instances) == 2000


def test_a_user_who_listens_on_thousands_of_ports_keeps_no_plan_back() -> None:
    held = tuple(taken(port) for port in range(16_000, 6_000, -1))
    hosts = inventory(*(f"gpu{number:02}" for number in range(1, 9)))
    began = time.process_time()
    made = planned(hosts, spec(model(replicas=64, port_auto=True), ray="on"), seen(*hosts.names, ports=held))
    assert time.process_time() - began < SECONDS
    assert all((instance.port or 0) > 16_000 for instance in made.instances)
