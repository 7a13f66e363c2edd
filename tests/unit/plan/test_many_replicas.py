"""Thousands of replicas are planned in seconds: a file of three lines asks for them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from flagscale_deploy.config.spec import PoolSpec, ServeSpec
from flagscale_deploy.inventory.model import Host, Inventory
from tests.unit.plan.given import OFFLINE, facts, faults_of, inventory, model, planned, seen, spec, taken

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


def wide(hosts: int, gpus: int | None) -> Inventory:
    return Inventory(tuple(Host(f"h{number}", f"h{number}", gpus=gpus) for number in range(hosts)), {}, "hosts.yaml")


WIDE = wide(3200, None)
TOO_LARGE: dict[str, tuple[Inventory, ServeSpec, str]] = {
    "GPUs": (wide(1000, 9999), spec(model()), "up to 9,999 GPUs"),
    "GPUs of one host": (Inventory((*wide(999, 1).hosts, *ONE.hosts), {}, "hosts.yaml"), spec(), "up to 9,999 GPUs"),
    "ranks": (wide(9000, 1000), spec(model(engine_args={"data-parallel-size": 999_999})), "up to 1,000 GPUs"),
    "a server for each host": (WIDE, spec(model(replicas="auto", num_gpus=0), ray="off"), "up to 3,200 servers"),
    "servers for each host": (WIDE, spec(model(replicas=9999, num_gpus=0), ray="off"), "up to 9,999 servers"),
    "a long flag": (ONE, spec(model(replicas=9999, engine_args={"x": "y" * 20_000})), "more than 64.0 MiB"),
    "flags": (ONE, spec(model(replicas=9999, engine_args={f"x{n}": "y" for n in range(2000)})), "more than 64.0 MiB"),
    "a list": (ONE, spec(model(replicas=9999, engine_args={"x": ["y"] * 5000})), "more than 64.0 MiB"),
    "flags alone": (ONE, spec(model(replicas=9999, action_args=("x",) * 20_000)), "more than 64.0 MiB"),
    "variables": (ONE, spec(model(replicas=9999), env={"X": "y" * 20_000}), "more than 64.0 MiB"),
    "commands of hosts": (
        Inventory(tuple(replace(host, before_start="x" * 40_000) for host in WIDE.hosts), {}, "hosts.yaml"),
        spec(model()),
        "more than 64.0 MiB",
    ),
    "commands": (WIDE, spec(model(), before_start="x" * 40_000), "more than 64.0 MiB"),
}


@pytest.mark.parametrize(("hosts", "asked", "problem"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_no_plan_can_hold_is_refused_at_once(hosts: Inventory, asked: ServeSpec, problem: str) -> None:
    began = time.process_time()
    (fault,) = faults_of(hosts, asked, OFFLINE)
    assert problem in fault.problem
    assert time.process_time() - began < SECONDS


def test_no_host_ends_a_plan_by_the_gpus_that_it_reports() -> None:
    hosts = inventory(*(f"gpu{number:02}" for number in range(1, 61)))
    reported = {**seen(*hosts.names), "gpu60": facts("gpu60", 9000)}
    assert planned(hosts, spec(model(), ray="off"), reported).instances
