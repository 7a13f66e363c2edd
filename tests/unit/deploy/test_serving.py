"""Where hosts are told to connect: to an address of their own only, by what the operator and they themselves know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.serving import host_at
from flagscale_deploy.deploy.status import look
from flagscale_deploy.inventory.model import Host
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import answering
from tests.unit.deploy.test_status import INSTANCE, LOST, NOTHING, NOW, WELL, head, record, worker

HOSTS = ["gpu01", "gpu02", "gpu03"]
ADDRESSES = {
    "http://127.0.0.1:8123": "http://10.0.0.1:8123",
    "http://10.0.0.1:8123": "http://10.0.0.1:8123",
    "http://10.0.0.2:8123": "http://10.0.0.2:8123",
    "http://[fd00::3]:8123": "http://gpu03:8123",
}
PROGRAM: Any = {
    **INSTANCE, "name": "app/0", "engine": "program", "endpoint": "http://10.0.0.1:8123", "hosts": HOSTS,
    "addresses": ADDRESSES,
}  # fmt: skip
YES, NO = {"serves": True, "why": ""}, {"serves": False, "why": ""}
FOREIGN = {"serves": False, "foreign": True, "why": "port 8123 is held by another user's process (uid 7)"}


def looked(
    at: str, replies: dict[str, Any] | None = None, node_ip: str | None = None, **others: Any
) -> tuple[InstanceStatus, list[str]]:
    """Return what is shown of a program that its head says answers `at`, and the hosts that were asked there.

    `replies` are of `serving`, by host; `others` replace what a host says in `inspect`.
    """
    verified = replies or {}
    program = PROGRAM | {"addresses": {**ADDRESSES, **others.pop("addresses", {})}}
    recorded = record("ray-head", instances=[program], ports={"app/0": 8123}, hosts=HOSTS)
    inspected = {"gpu01": head(record=recorded, instances={"app/0": {**WELL, "health": None, "at": at}})}
    inspected |= {name: worker(record={**recorded, "roles": ["ray-worker"]}) for name in HOSTS[1:]} | others

    def inspect(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        reply = inspected[host.name]
        if isinstance(reply, Exception):
            raise reply
        yield reply

    def serving(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield verified.get(host.name, YES)

    fleet = FakeFleet(answering(inspect=inspect, serving=serving), HOSTS)
    if node_ip is not None:
        fleet.hosts["gpu02"] = replace(fleet.hosts["gpu02"], node_ip=node_ip)
    (instance,) = look(fleet, "qwen", "gpu01", now=NOW).instances
    return instance, [call.host for call in fleet.sent("serving")]


@pytest.mark.parametrize(("at", "host"), [("http://10.0.0.2:8123", "gpu02"), ("http://[fd00::3]:8123", "gpu03")])
def test_the_host_whose_address_it_is_is_asked_and_no_other(at: str, host: str) -> None:
    instance, asked = looked(at)
    assert (instance.state, instance.endpoint, asked) == ("ready", ADDRESSES[at], [host])


@pytest.mark.parametrize("liar", [YES, NO, FOREIGN])
@pytest.mark.parametrize("own", [NO, FOREIGN])
def test_no_host_vouches_for_another_ones_port(liar: dict[str, Any], own: dict[str, Any]) -> None:
    instance, asked = looked("http://[fd00::3]:8123", {"gpu02": liar, "gpu03": own})
    assert (instance.state, asked) == ("unwell" if own is FOREIGN else "starting", ["gpu03"])
    assert instance.endpoint == PROGRAM["endpoint"]


@pytest.mark.parametrize(
    "at",
    [
        "http://127.0.0.1:8123/admin?x=", "http://127.0.0.1:9000", "http://[::1]:8123", "http://[::ffff:127.0.0.1]:8123",
        "http://0.0.0.0:8123", "http://169.254.169.254:8123", "http://169.254.169.254:80/latest", "http://224.0.0.1:8123",
        "http://10.0.0.9:8123", "http://10.0.0.2:22", "http://10.0.0.2:8123/", "http://10.0.0.2:8123/x", "http://a@10.0.0.2:8123",
        "http://10.0.0.2:8123?x=", "http://10.0.0.2:8123#", "http://localhost:8123", "https://10.0.0.2:8123", "ftp://10.0.0.2:8123",
        "http://[::1", "http://10.0.0.2:99999", "http://10.0.0.2", "http://:8123", "10.0.0.2:8123", "x" * 9999,
    ],
)  # fmt: skip
@pytest.mark.parametrize("recorded", [False, True])
def test_the_head_leads_no_host_anywhere_else(at: str, recorded: bool) -> None:
    """Neither by what it replies nor by what it has recorded."""
    for place in (at, "http://10.0.0.2:8123"):
        more = {at: "http://far"} if recorded else {}
        instance, asked = looked(place, addresses=more)
        assert set(asked) <= ({"gpu02"} if place != at else set())
        if place == at:
            assert instance.state == "starting"
            assert len(instance.problem) < 500


@pytest.mark.parametrize(
    "own",
    [
        NOTHING,
        LOST,
        worker(record=record("ray-worker", ports={"app/0": 8123}, run_id="run-9")),
        worker(record=record("ray-worker", ports={"app/0": 8124})),
        worker(record=record("ray-worker")),
    ],
)
def test_no_host_is_asked_that_says_it_has_no_part_in_it(own: Any) -> None:
    instance, asked = looked("http://10.0.0.2:8123", gpu02=own)
    assert (instance.state, asked) == ("starting", [])


def test_an_address_of_the_inventory_is_right() -> None:
    link_local = {"http://169.254.1.2:8123": "http://far"}
    addresses = [*[*ADDRESSES][:2], *link_local]
    server = PROGRAM | {"hosts": HOSTS[:2], "addresses": dict.fromkeys(addresses, "x")}
    assert [host_at(server, address) for address in addresses] == ["", "gpu01", "gpu02"]
    assert looked("http://10.0.0.2:8123", node_ip="10.0.0.2")[0].state == "ready"
