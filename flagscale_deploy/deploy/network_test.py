"""Tries the data network: every host connects to every other, on the ports that will be used and on ports of chance."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from flagscale_deploy.checks.links import ALL_PAIRS, TOURNAMENT
from flagscale_deploy.checks.model import Link
from flagscale_deploy.errors import HostError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.model import InstancePlan, Plan, RouterPlan
from flagscale_deploy.plan.network import is_address, plan_networks
from flagscale_deploy.transport.fleet import Fleet, answers, failures
from flagscale_deploy.transport.remote_program import Program

RAY, DATA = "Ray's port", "data"
PEERS = 4
END_SECONDS = 5.0


@dataclass(frozen=True)
class Door:
    """A port to listen on; `port` 0 is one that the kernel chooses. `sources`: who tries it, None for every peer.

    `problem`: why it could not be opened. An `ephemeral` port is for any connection of the data network.
    """

    host: str
    address: str
    port: int
    use: str
    sources: frozenset[str] | None = None
    ephemeral: bool = False
    problem: str = ""

    def is_tried_by(self, name: str) -> bool:
        return not self.problem and (self.sources is None or name in self.sources)


def try_links(
    fleet: Fleet, plan: Plan | None, facts: Mapping[str, Facts], *, measure: bool = False, timeout: float = 60.0
) -> tuple[Link, ...]:
    """Connections between all hosts that something of a plan runs on and that have facts, in both directions; without
    a plan between all that have facts. With `measure`, how fast they are.

    A program on every host listens on the address of the data network: on a port of chance, on Ray's port on the head,
    and where a router on another host has its engines, on theirs. Ports that are taken are left out. The listeners are
    gone when this returns. It takes about 2 s where packets vanish, and no longer for many of them. With `measure`
    0.6 s a round: of n hosts n - 1 rounds, in which each talks to one other; on more than 8 hosts 3 at most. A host
    where the program does not run is a link with a problem.
    """
    hosts = [name for name in (plan.working if plan else fleet.hosts) if name in facts]
    if len(hosts) < 2:
        return ()
    with ExitStack() as stack:
        trial = Trial(fleet, hosts, list(_doors(fleet, plan, facts, hosts)), timeout, stack)
        links = trial.connect(plan.head if plan else hosts[0])
        if measure:
            links = trial.measure(links)
        trial.end()
        return tuple(links)


def _doors(fleet: Fleet, plan: Plan | None, facts: Mapping[str, Facts], hosts: Sequence[str]) -> Iterator[Door]:
    networks, _ = plan_networks([fleet.hosts[name] for name in hosts], facts)
    for name in hosts:
        yield Door(name, networks[name].node_ip, 0, DATA, ephemeral=True)
    if plan is None:
        return
    if plan.ray.enabled and plan.ray.head in hosts:
        yield Door(plan.ray.head, plan.ray.head_ip, plan.ray.port, RAY)
    for router in plan.routers:
        for instance in plan.instances:
            far = instance.driver != router.driver and {instance.driver, router.driver} <= set(hosts)
            if instance.model == router.model and far:
                yield from _engine_door(instance, router, networks[instance.driver].node_ip)


def _engine_door(instance: InstancePlan, router: RouterPlan, node_ip: str) -> Iterator[Door]:
    """Where the router expects the engine; not where that is a name, or an address that is only its own."""
    url = urlsplit(instance.worker_url)
    address = url.hostname or ""
    if url.port and is_address(address) and (address == node_ip or not ip_address(address).is_loopback):
        yield Door(instance.driver, address, url.port, f"{instance.name}'s port", frozenset({router.driver}))


class Trial:
    """The programs that run on the hosts, and what they are told."""

    def __init__(
        self,
        fleet: Fleet,
        hosts: Sequence[str],
        doors: Sequence[Door],
        timeout: float,
        stack: ExitStack,
    ) -> None:
        self._fleet, self._hosts, self._doors = fleet, hosts, doors
        self._token = secrets.token_hex(32)
        self._timeout, self._stack = timeout, stack
        self.programs: dict[str, Program] = {}

    def connect(self, head: str) -> list[Link]:
        """Listen everywhere, then connect from everywhere."""
        opened = self._fleet.gather({name: partial(self._listen, name) for name in self._hosts}, together=True)
        doors = [door for found in answers(opened).values() for door in found]
        pairs = peers(self._hosts, head)
        untried = {door.host: self._untried(door.host, door.problem) for door in doors if door.problem}
        untried |= {name: self._untried(name, str(error.problem)) for name, error in failures(opened).items()}
        wanted = {
            name: [
                Link(name, door.host, door.address, door.port, door.use, door.ephemeral)
                for door in doors
                if door.host in pairs[name] and door.is_tried_by(name)
            ]
            for name in self.programs
        }
        tried = self._fleet.gather({name: partial(self._try, name, wanted[name]) for name in wanted}, together=True)
        untried |= {name: self._untried(name, str(error.problem)) for name, error in failures(tried).items()}
        return [*untried.values(), *(link for links in answers(tried).values() for link in links)]

    def measure(self, links: Sequence[Link]) -> list[Link]:
        """The links with bandwidth and latency, where both directions of a pair work."""
        good = {(link.source, link.target): link for link in links if link.ephemeral and not link.failure}
        names = [name for name in self._hosts if any(name in pair for pair in good)]
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for pairs in rounds(names):
            both = [(one, other) for one, other in pairs if (one, other) in good and (other, one) in good]
            for way in (both, [(other, one) for one, other in both]):
                tasks = {one: partial(self._measure, good[one, other]) for one, other in way}
                for one, answer in answers(self._fleet.gather(tasks, together=True)).items():
                    found[one, dict(way)[one]] = answer
        return [_measured(link, found) if link.ephemeral else link for link in links]

    def end(self) -> None:
        """End all programs, then wait for one after another: their ports are free when they are gone."""
        for program in self.programs.values():
            program.end_input()
        for program in self.programs.values():
            program.allow(END_SECONDS)
            with suppress(HostError):  # what is wrong with it was said when it was asked
                for _ in program.messages():
                    pass

    def _listen(self, name: str) -> list[Door]:
        """Start the program on a host; its doors with the ports they have, without those of ports that are taken."""
        doors = [door for door in self._doors if door.host == name]
        args = {"token": self._token, "ports": [{"address": door.address, "port": door.port} for door in doors]}
        connection = self._fleet.connection(name)
        program = Program(connection, "network_test", args, timeout=self._timeout, cancelled=self._fleet.cancelled)
        self.programs[name] = self._stack.enter_context(program)
        opened = zip(doors, program.hear()["listening"], strict=True)
        return [_opened(door, got) for door, got in opened if not got.get("taken")]

    def _try(self, name: str, links: Sequence[Link]) -> list[Link]:
        program = self.programs[name]
        program.send({"try": [{"address": link.address, "port": link.port} for link in links]})
        return [replace(link, **tried) for link, tried in zip(links, program.hear()["tried"], strict=True)]

    def _measure(self, link: Link) -> dict[str, Any]:
        program = self.programs[link.source]
        program.send({"measure": {"address": link.address, "port": link.port}})
        return program.hear()

    def _untried(self, name: str, why: str) -> Link:
        other = next(each for each in self._hosts if each != name)
        address = next(door.address for door in self._doors if door.host == name)
        return Link(name, other, address, 0, DATA, ephemeral=True, failure="not-tried", problem=why)


def _opened(door: Door, got: Mapping[str, Any]) -> Door:
    if "problem" in got:
        return replace(door, problem=f"cannot listen on {door.address}: {got['problem']}")
    return replace(door, port=got["port"])


def _measured(link: Link, found: Mapping[tuple[str, str], Mapping[str, Any]]) -> Link:
    """Who measures is sent the bytes, so the bandwidth from A to B is what B says."""
    there, back = found.get((link.source, link.target), {}), found.get((link.target, link.source), {})
    return replace(link, bandwidth=back.get("bandwidth"), latency=there.get("latency"))


def peers(hosts: Sequence[str], head: str) -> dict[str, set[str]]:
    """Whom each host tries: everyone up to 64 hosts, then the head (and the head everyone), its neighbours, 4 others.

    The others are the same every time: a fault that was mended is looked at again.
    """
    if len(hosts) <= ALL_PAIRS:
        return {name: set(hosts) - {name} for name in hosts}
    found = {name: {head, *_others(name, hosts)} for name in hosts}
    for one, other in zip(hosts, [*hosts[1:], hosts[0]], strict=True):
        found[one].add(other)
        found[other].add(one)
    if head in found:
        found[head] = set(hosts)
    return {name: targets - {name} for name, targets in found.items()}


def _others(name: str, hosts: Sequence[str]) -> list[str]:
    return sorted(hosts, key=lambda other: hashlib.sha256(f"{name}\0{other}".encode()).digest())[:PEERS]


def rounds(names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Rounds of disjoint pairs: of up to 8 hosts each meets each (the circle method), of more their ring's edges."""
    if len(names) > TOURNAMENT:
        ring = list(zip(names, [*names[1:], names[0]], strict=True))
        odd_one = [ring.pop()] if len(names) % 2 else []
        return [part for part in (ring[0::2], ring[1::2], odd_one) if part]
    seats: list[str | None] = [*names, None] if len(names) % 2 else [*names]
    played = []
    for _ in range(len(seats) - 1):
        facing = zip(seats[: len(seats) // 2], reversed(seats), strict=False)
        played.append([(one, other) for one, other in facing if one is not None and other is not None])
        seats[1:] = [seats[-1], *seats[1:-1]]
    return played
