"""Connections between hosts, with the real programs on addresses of this machine's loopback."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.checks.types import Link
from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.spec import RouterSpec, ServeSpec
from flagscale_deploy.deploy.network_test import DATA, RAY, ListenPort, peers, rounds, try_links
from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.facts.model import Facts, Interface
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.handshake import HANDSHAKE_SECONDS, NONCE, TAG, Handshake, authenticate
from flagscale_deploy.remote.messages.check import (
    NETWORK_TEST,
    NetworkTestArguments,
    NetworkTestOrder,
    NetworkTestReply,
)
from flagscale_deploy.transport.base import Connection, Source
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.local import LocalConnection, LocalRunning
from flagscale_deploy.transport.remote_program import Program
from tests.unit.plan.given import facts, inventory, model, planned, spec

NAMES = ("gpu01", "gpu02", "gpu03")
ADDRESSES = {name: f"127.0.0.{10 + at}" for at, name in enumerate(NAMES)}
HOSTS = tuple(
    Host(name, name, connection="local", python=sys.executable, node_ip=ADDRESSES[name], gpus=8) for name in NAMES
)
FACTS = {name: facts(name) for name in NAMES}
TOKEN = b"t" * 32
PLAN = planned(inventory(*NAMES), spec(model(tp=24, port=4567)))


@pytest.fixture
def free_port() -> int:
    """Provide a port that is free on every address."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def plan(free_port: int) -> Plan:
    return replace(PLAN, ray=replace(PLAN.ray, port=free_port, head_ip=ADDRESSES["gpu01"]))


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(HOSTS) as partners:
        yield partners


def seen(links: Sequence[Link], use: str) -> set[tuple[str, str, str]]:
    return {(link.source, link.target, link.problem) for link in links if link.use == use}


EVERY_PAIR = {(one, other, "") for one in NAMES for other in NAMES if one != other}


def test_every_host_reaches_every_other_and_the_heads_ray_port(fleet: Fleet, plan: Plan) -> None:
    links = try_links(fleet, plan, FACTS)
    assert seen(links, DATA) == EVERY_PAIR
    assert seen(links, RAY) == {("gpu02", "gpu01", ""), ("gpu03", "gpu01", "")}
    assert {(link.address, link.port) for link in links if link.use == RAY} == {(plan.ray.head_ip, plan.ray.port)}
    assert all(0 < link.seconds < 30 for link in links)


def test_without_a_plan_all_hosts_are_tried_and_measured(fleet: Fleet) -> None:
    links = try_links(fleet, None, FACTS, measure=True)
    assert seen(links, DATA) == EVERY_PAIR
    assert len(links) == len(EVERY_PAIR)
    assert all(link.bandwidth and link.latency for link in links)


def test_hosts_that_nothing_runs_on_are_not_tried(fleet: Fleet) -> None:
    two = planned(inventory(*NAMES), spec(model(tp=8, replicas=2, port=4567), ray="off"), FACTS)
    assert seen(try_links(fleet, replace(two, routers=()), FACTS), DATA) == {
        ("gpu01", "gpu02", ""),
        ("gpu02", "gpu01", ""),
    }
    one = planned(inventory(*NAMES), spec(model(tp=8, port=4567), ray="off"), FACTS)
    assert try_links(fleet, one, FACTS) == ()


def test_nothing_listens_afterwards(fleet: Fleet, plan: Plan) -> None:
    for link in try_links(fleet, plan, FACTS):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((link.address, link.port), timeout=5)


def test_a_port_that_is_taken_is_left_to_the_check_of_ports(fleet: Fleet, plan: Plan) -> None:
    with socket.create_server((plan.ray.head_ip, plan.ray.port)):
        links = try_links(fleet, plan, FACTS)
    assert seen(links, RAY) == set()
    assert seen(links, DATA) == EVERY_PAIR


@pytest.mark.parametrize("front", [{}, {"router": RouterSpec(enabled=False), "gate": GateSpec()}])
def test_a_router_or_gate_reaches_its_engines_and_nobody_else_is_asked_to(
    fleet: Fleet, plan: Plan, free_port: int, front: dict[str, Any]
) -> None:
    routed = planned(inventory(*NAMES), spec(model(tp=8, port=free_port, replicas=3), **front))
    instances = tuple(
        replace(
            instance, ranks=(replace(instance.ranks[0], worker_url=f"http://{ADDRESSES[instance.driver]}:{free_port}"),)
        )
        for instance in routed.instances
    )
    links = try_links(fleet, replace(routed, instances=instances), FACTS)
    assert {(link.source, link.target, link.port, link.use) for link in links if link.use != DATA} == {
        ("gpu01", "gpu02", free_port, "qwen/1's port"),
        ("gpu01", "gpu03", free_port, "qwen/2's port"),
    }


@pytest.mark.parametrize(
    ("serve", "use"),
    [
        (spec(model(tp=24, port=4567), executor="mp", ray="auto"), "master"),
        (spec(model(engine_args={"data-parallel-size": 24}, port=4567), ray="auto"), "data-parallel-rpc"),
    ],
    ids=["multiprocessing", "data parallel"],
)
def test_followers_reach_the_port_where_they_find_their_driver_and_the_driver_reaches_them(
    fleet: Fleet, serve: ServeSpec, use: str, free_port: int
) -> None:
    group = planned(inventory(*NAMES), serve)
    (instance,) = group.instances
    driver = replace(instance.ranks[0], ports={**instance.ranks[0].ports, use: free_port})
    made = replace(group, instances=(replace(instance, ranks=(driver, *instance.ranks[1:])),))
    links = try_links(fleet, made, FACTS)
    met = f"qwen/0's {use} port"
    assert seen(links, met) == {("gpu02", "gpu01", ""), ("gpu03", "gpu01", "")}
    assert {(link.address, link.port) for link in links if link.use == met} == {(ADDRESSES["gpu01"], free_port)}
    assert seen(links, DATA) == EVERY_PAIR


def test_a_follower_tries_its_drivers_port_also_where_hosts_try_a_sample() -> None:
    meeting = ListenPort("gpu01", "10.0.0.1", 29501, "qwen/0's master port", frozenset({"gpu70"}))
    assert meeting.is_tried_by("gpu70", targets=())
    assert not meeting.is_tried_by("gpu69", targets=("gpu01",))
    assert not replace(meeting, sources=None).is_tried_by("gpu70", targets=())


def test_hosts_without_facts_are_left_out_and_one_alone_has_no_links(fleet: Fleet, plan: Plan) -> None:
    links = try_links(fleet, plan, {name: FACTS[name] for name in ("gpu01", "gpu02")})
    assert {name for link in links for name in (link.source, link.target)} == {"gpu01", "gpu02"}
    assert try_links(fleet, plan, {"gpu01": FACTS["gpu01"]}) == ()


def test_an_address_that_is_not_the_hosts_is_told_and_the_others_are_tried(plan: Plan) -> None:
    foreign = replace(HOSTS[2], node_ip="192.0.2.1")
    with Fleet([*HOSTS[:2], foreign]) as fleet:
        links = try_links(fleet, plan, FACTS)
    problems = {link.source: link.problem for link in links if link.failure == "not-tried"}
    assert {link.failure for link in links} == {None, "not-tried"}
    assert problems == {"gpu03": "cannot listen on 192.0.2.1: Cannot assign requested address"}
    assert seen(links, DATA) >= {("gpu01", "gpu02", ""), ("gpu02", "gpu01", ""), ("gpu03", "gpu01", "")}


class Lying(LocalConnection):
    """A host that reports other ports than it listens on."""

    port = 0

    def start(self, command: str) -> LocalRunning:
        port = self.port

        class Running(LocalRunning):
            def read(self, timeout: float) -> tuple[Source, bytes] | None:
                output = super().read(timeout)
                if output is None or b'"listening"' not in output[1]:
                    return output
                return output[0], re.sub(rb'"port": *\d+', b'"port": %d' % port, output[1])

        return Running(self.host.name, command)


@pytest.mark.parametrize("port", [0, 22, 80, 1023, 65536, 10**9])
def test_a_port_that_no_kernel_chooses_and_nobody_asked_for_is_told_to_no_host(plan: Plan, port: int) -> None:
    def connect(host: Host, timeout: float) -> Connection:
        lying = type("LyingAboutPorts", (Lying,), {"port": port})
        return lying(host) if host.name == "gpu01" else LocalConnection(host)

    with Fleet(HOSTS, connect=connect) as fleet:
        links = try_links(fleet, plan, FACTS)
    problems = {link.source: link.problem for link in links if link.failure == "not-tried"}
    assert list(problems) == ["gpu01"]
    assert f"it reports that it listens on port {port} of 127.0.0.10, not on " in problems["gpu01"]
    assert {link.target for link in links if link.failure != "not-tried"} == {"gpu02", "gpu03"}


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "x y"]
)
def test_an_address_that_only_the_host_names_is_told_to_no_host_where_others_must_not_connect(
    plan: Plan, address: str
) -> None:
    lying = replace(FACTS["gpu03"], default_address=address, interfaces=(Interface("eth0", addresses=(address,)),))
    with Fleet([*HOSTS[:2], replace(HOSTS[2], node_ip=None)]) as fleet:
        links = try_links(fleet, plan, FACTS | {"gpu03": lying})
    assert [link.source for link in links if link.failure == "not-tried"] == ["gpu03"]
    assert {link.address for link in links if link.failure != "not-tried"} <= {*ADDRESSES.values()}
    assert seen(links, DATA) >= {("gpu01", "gpu02", ""), ("gpu02", "gpu01", ""), ("gpu03", "gpu01", "")}


def test_a_host_that_is_lost_meanwhile_is_a_link_with_a_problem(plan: Plan) -> None:
    class Lost(LocalConnection):
        def open(self) -> None:
            raise UnreachableError(self.host.name, "no answer in time")

    def connect(host: Host, timeout: float) -> Connection:
        return Lost(host) if host.name == "gpu02" else LocalConnection(host)

    with Fleet(HOSTS, connect=connect) as fleet:
        links = try_links(fleet, plan, FACTS)
    assert [(link.source, link.problem) for link in links if link.failure] == [("gpu02", "no answer in time")]
    assert seen(links, DATA) - {("gpu02", "gpu01", "no answer in time")} == {
        ("gpu01", "gpu03", ""),
        ("gpu03", "gpu01", ""),
    }


def test_bandwidth_and_latency_are_measured_where_asked_for(fleet: Fleet, plan: Plan) -> None:
    links = try_links(fleet, plan, FACTS, measure=True)
    for link in links:
        if link.use == DATA:
            assert link.bandwidth is not None
            assert link.bandwidth > 1e6
            assert link.latency is not None
            assert 0 < link.latency < 0.5
        else:
            assert link.bandwidth is None


def test_each_host_meets_each_other_once_in_rounds_of_disjoint_pairs() -> None:
    for count in range(2, 9):
        names = [f"n{at}" for at in range(count)]
        played = rounds(names)
        met = [frozenset(pair) for pairs in played for pair in pairs]
        assert len(met) == len(set(met)) == count * (count - 1) // 2
        assert all(len({name for pair in pairs for name in pair}) == 2 * len(pairs) for pairs in played)
        assert len(played) == count - 1 + count % 2


@pytest.mark.parametrize("count", [9, 10, 65])
def test_many_hosts_are_measured_around_a_ring_in_few_rounds(count: int) -> None:
    names = [f"n{at}" for at in range(count)]
    played = rounds(names)
    assert sorted(pair for pairs in played for pair in pairs) == sorted(
        (names[at], names[(at + 1) % count]) for at in range(count)
    )
    assert len(played) <= 3
    assert all(len({name for pair in pairs for name in pair}) == 2 * len(pairs) for pairs in played)


def test_very_many_hosts_try_the_head_their_neighbours_and_a_few_others() -> None:
    names = [f"n{at:03}" for at in range(300)]
    partners = peers(names, "n007")
    assert partners == peers(names, "n007")
    assert partners["n007"] == set(names) - {"n007"}
    for at, name in enumerate(names):
        assert name not in partners[name]
        assert {names[at - 1], names[(at + 1) % 300], "n007"} - {name} <= partners[name]
        assert name == "n007" or len(partners[name]) <= 7
    assert peers(names[:64], "n007")["n001"] == set(names[:64]) - {"n001"}


Running = Program[NetworkTestReply, NetworkTestOrder]


@pytest.fixture
def reach() -> Iterator[Running]:
    """Provide the program on one host, which listens on one port."""
    args: NetworkTestArguments = {"token": TOKEN.hex(), "ports": [{"address": "127.0.0.1", "port": 0}]}
    with Program(LocalConnection(HOSTS[0]), NETWORK_TEST, args, timeout=30) as program:
        yield program


def port_of(program: Running) -> int:
    return int(program.hear()["listening"][0]["port"])


@pytest.mark.parametrize("sent_data", [b"x" * (NONCE + TAG), b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", b"z"])
def test_a_client_without_the_token_gets_a_nonce_at_most(reach: Running, sent_data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(reach)), timeout=10) as stranger:
        stranger.sendall(sent_data)
        stranger.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := stranger.recv(100):
                received += data
        assert len(received) <= NONCE


def test_a_client_with_the_token_is_authenticated_even_in_pieces(reach: Running) -> None:
    with socket.create_connection(("127.0.0.1", port_of(reach)), timeout=10) as client:
        handshake = Handshake(TOKEN, is_client=True)
        unsent = handshake.start()
        while handshake.missing:
            for at in range(0, len(unsent), 7):
                client.sendall(unsent[at : at + 7])
            unsent = handshake.receive(client.recv(handshake.missing))
        client.sendall(b"z")
        assert client.recv(100) == b"", "there is no such request"


class FewFiles(LocalConnection):
    """A host on which a program may open 80 files."""

    def start(self, command: str) -> LocalRunning:
        return LocalRunning(self.host.name, f"ulimit -n 80; exec {command}")


def test_strangers_in_plenty_do_not_keep_peers_out() -> None:
    """Each connects again once it is turned away. The program may open fewer files than there are strangers."""
    args: NetworkTestArguments = {"token": TOKEN.hex(), "ports": [{"address": "127.0.0.1", "port": 0}]}
    ended = threading.Event()
    with Program(FewFiles(HOSTS[0]), NETWORK_TEST, args, timeout=60) as program:
        port = port_of(program)

        def be_strange() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as stranger:
                    while not ended.wait(0.1):
                        stranger.sendall(b"?")

        strangers = [threading.Thread(target=be_strange) for _ in range(150)]
        for stranger in strangers:
            stranger.start()
        try:
            for _ in range(20):
                began = time.monotonic()
                with socket.create_connection(("127.0.0.1", port), 5, ("127.0.0.2", 0)) as peer:
                    authenticate(peer, TOKEN, is_client=True)
                assert time.monotonic() - began < HANDSHAKE_SECONDS
        finally:
            ended.set()
            for stranger in strangers:
                stranger.join(10)


def test_a_peer_that_measures_for_ever_is_dropped_and_keeps_out_no_other(reach: Running) -> None:
    port = port_of(reach)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 5) as slow:
        authenticate(slow, TOKEN, is_client=True)
        slow.settimeout(5)
        slow.sendall(b"e")
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 60:
                slow.sendall(b".")
                assert slow.recv(1)
                other = time.monotonic()
                with socket.create_connection(("127.0.0.1", port), 5) as peer:
                    authenticate(peer, TOKEN, is_client=True)
                assert time.monotonic() - other < 10
                time.sleep(0.3)
                if not slow.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                    break
    assert time.monotonic() - began < 30


def test_addresses_that_cannot_be_and_sockets_that_cannot_be_had_are_failures_of_their_own() -> None:
    args: NetworkTestArguments = {"token": TOKEN.hex(), "ports": [{"address": "127.0.0.1", "port": 0}]}
    with Program(FewFiles(HOSTS[0]), NETWORK_TEST, args, timeout=60) as program:
        good = {"address": "127.0.0.1", "port": port_of(program)}
        wrong = [{"address": "127.0.0.1", "port": 1 << 20}, {"address": "\0", "port": 1}, {"address": "::x", "port": 1}]
        program.send({"try": [good, *wrong, *([good] * 90)]})  # type: ignore[list-item]
        failures = [attempt["failure"] for attempt in program.hear()["tried"]]
        assert failures[1:4] == ["no-route"] * 3
        assert set(failures[4:]) <= {None, "no-route", "wrong-peer"}
        assert "no-route" in failures[4:]
        program.send({"try": [good]})  # type: ignore[list-item]
        assert program.hear()["tried"][0]["failure"] is None


def test_refused_and_foreign_listeners_are_told_apart(reach: Running, free_port: int) -> None:
    port_of(reach)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        ports = (free_port, foreign.getsockname()[1])
        reach.send({"try": [{"address": "127.0.0.1", "port": port} for port in ports]})
        taken, _ = foreign.accept()
        with taken:
            taken.recv(100)
            taken.sendall(b"HTTP/1.1 400 Bad Request\r\n")
            tried = reach.hear()["tried"]
    assert [attempt["failure"] for attempt in tried] == ["refused", "wrong-peer"]
    assert [attempt["problem"] for attempt in tried] == ["refused", "something else answers there"]


def test_the_program_ends_with_its_standard_input(reach: Running) -> None:
    port = port_of(reach)
    began = time.monotonic()
    reach.end_input()
    assert list(reach.messages()) == []
    assert time.monotonic() - began < 30
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_an_order_may_come_in_pieces(reach: Running) -> None:
    port = port_of(reach)
    line = json.dumps({"try": [{"address": "127.0.0.1", "port": port}]}).encode() + b"\n"
    for at in range(0, len(line), 7):
        reach._running.send(line[at : at + 7])
    assert [attempt["problem"] for attempt in reach.hear()["tried"]] == [""]  # and no failure


def test_facts_are_not_needed_for_anything_but_the_address() -> None:
    with Fleet(HOSTS) as fleet:
        assert (
            len(try_links(fleet, replace(PLAN, ray=replace(PLAN.ray, enabled=False)), dict.fromkeys(NAMES, Facts())))
            == 6
        )
