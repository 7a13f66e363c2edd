"""Test TCP connectivity between all hosts on the planned ports and on ephemeral ports."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from flagscale_deploy.checks.connectivity import ALL_PAIRS, TOURNAMENT
from flagscale_deploy.checks.types import Link
from flagscale_deploy.errors import HostError, InterruptedByUser
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.entrances import GatePlan, RouterPlan
from flagscale_deploy.plan.model import Network, Plan
from flagscale_deploy.plan.network import address_problem, is_address, plan_networks
from flagscale_deploy.plan.pools import SIDE_HOST
from flagscale_deploy.plan.rank import MASTER_PORT, RPC_PORT, SIDE_CHANNEL, Rank
from flagscale_deploy.remote.messages.check import (
    NETWORK_TEST,
    NetworkTestArguments,
    NetworkTestOrder,
    NetworkTestReply,
    OpenedPort,
)
from flagscale_deploy.transport.fleet import Fleet, answers, failures
from flagscale_deploy.transport.remote_program import Program, at_once

RAY, DATA = "Ray's port", "data"
PEERS = 4
UNPRIVILEGED = range(1024, 1 << 16)
"""Where every kernel's ephemeral ports are: other hosts connect to whatever port a host reports."""
END_SECONDS = 5.0


@dataclass(frozen=True)
class ListenPort:
    """A port that a host listens on for the test.

    `port` 0 lets the kernel choose one; such an `ephemeral` port stands for any connection of the data network.
    `sources` are the hosts that try it, None for every peer. `problem` is why the host cannot listen on it.
    """

    host: str
    address: str
    port: int
    use: str
    sources: frozenset[str] | None = None
    ephemeral: bool = False
    problem: str = ""

    def is_tried_by(self, name: str, targets: Collection[str]) -> bool:
        """Return whether a host that tries its peers, `targets`, is to connect to it."""
        return not self.problem and (self.host in targets if self.sources is None else name in self.sources)


def try_links(
    fleet: Fleet, plan: Plan | None, facts: Mapping[str, Facts], *, measure: bool = False, timeout: float = 60.0
) -> tuple[Link, ...]:
    """Test connections between hosts, in both directions; with `measure` also how fast they are.

    The hosts are those with facts that a plan runs something on, without a plan all with facts. A program on each of
    them listens on its address in the data network: on an ephemeral port, on Ray's port on the head, and on the ports
    of engines that a router or gate on another host uses, and on those at which ranks find their driver. Ports in use
    are left out. All listeners are closed on return.

    The test takes about 2 s where packets are dropped, however many are. Measurements take 0.6 s for each round: n - 1
    rounds of disjoint pairs for n hosts, 3 at most for more than 8 hosts. A host where the program does not run is a
    link that was not tried.
    """
    hosts = [name for name in (plan.working if plan else fleet.hosts) if name in facts]
    if len(hosts) < 2:
        return ()
    with ExitStack() as stack:
        test = NetworkTest(fleet, hosts, list(_listen_ports(fleet, plan, facts, hosts)), timeout, stack)
        links = test.connect(plan.head if plan else hosts[0])
        if measure:
            links = test.measure(links)
        test.end()
        return tuple(links)


def _listen_ports(
    fleet: Fleet, plan: Plan | None, facts: Mapping[str, Facts], hosts: Sequence[str]
) -> Iterator[ListenPort]:
    networks, _ = plan_networks([fleet.hosts[name] for name in hosts], facts)
    problems = {name: address_problem(fleet.hosts[name], networks[name].node_ip) for name in hosts}
    for name in hosts:
        yield ListenPort(name, networks[name].node_ip, 0, DATA, ephemeral=True, problem=problems[name])
    hosts = [name for name in hosts if not problems[name]]
    if plan is None:
        return
    if plan.ray.enabled and plan.ray.head in hosts:
        yield ListenPort(plan.ray.head, plan.ray.head_ip, plan.ray.port, RAY)
    yield from _meeting_ports(plan, networks, hosts)
    yield from _side_channels(plan, hosts)
    for front in plan.fronts:
        for rank in (rank for instance in plan.behind(front) for rank in instance.ranks):
            if rank.answers and rank.host != front.driver and {rank.host, front.driver} <= set(hosts):
                yield from _engine_port(rank, front, networks[rank.host].node_ip)


def _meeting_ports(plan: Plan, networks: Mapping[str, Network], hosts: Sequence[str]) -> Iterator[ListenPort]:
    """Yield the ports at which the ranks of a group find their driver.

    The other way, the driver connects to ephemeral ports of theirs.
    """
    for instance in plan.instances:
        others = frozenset(instance.possible_hosts[1:]) & set(hosts)
        for use, port in instance.ranks[0].ports.items():
            if use in (MASTER_PORT, RPC_PORT) and others and instance.driver in hosts:
                address = networks[instance.driver].node_ip
                yield ListenPort(instance.driver, address, port, f"{instance.name}'s {use} port", others)


def _side_channels(plan: Plan, hosts: Sequence[str]) -> Iterator[ListenPort]:
    """Yield the ports at which decode engines ask those of prefill for the KV cache."""
    for instance in plan.instances:
        decode = {host for other in plan.instances if other.model == instance.model and other.pool == "decode"
                  for host in other.hosts}  # fmt: skip
        for rank in instance.ranks if instance.pool == "prefill" else ():
            sources = frozenset(decode - {rank.host}) & set(hosts)
            if SIDE_CHANNEL in rank.ports and sources and rank.host in hosts:
                port = rank.ports[SIDE_CHANNEL]
                yield ListenPort(rank.host, rank.env[SIDE_HOST], port, f"{rank.name}'s NIXL side channel", sources)


def _engine_port(rank: Rank, front: RouterPlan | GatePlan, node_ip: str) -> Iterator[ListenPort]:
    """Yield the port that a router or gate expects the engine on, unless its host is a name or a loopback address."""
    url = urlsplit(rank.worker_url)
    address = url.hostname or ""
    if url.port and is_address(address) and (address == node_ip or not ip_address(address).is_loopback):
        yield ListenPort(rank.host, address, url.port, f"{rank.name}'s port", frozenset({front.driver}))


class NetworkTest:
    """The programs of a test on all hosts, and the requests to them."""

    def __init__(
        self, fleet: Fleet, hosts: Sequence[str], ports: Sequence[ListenPort], timeout: float, stack: ExitStack
    ) -> None:
        """Start nothing yet; `timeout` in seconds is for the whole test, and `stack` ends the programs."""
        self._fleet, self._hosts, self._ports = fleet, hosts, ports
        self._token = secrets.token_hex(32)
        self._timeout = timeout
        stack.callback(self._close)
        self.programs: dict[str, Program[NetworkTestReply, NetworkTestOrder]] = {}

    def connect(self, head: str) -> list[Link]:
        """Listen on all hosts, then connect from all hosts."""
        opened = self._fleet.gather({name: partial(self._listen, name) for name in self._hosts}, together=True)
        ports = [port for opened_ports in answers(opened).values() for port in opened_ports]
        targets = peers(self._hosts, head)
        untried = {port.host: self._untried(port.host, port.problem) for port in ports if port.problem}
        untried |= {name: self._untried(name, error.problem) for name, error in failures(opened).items()}
        wanted = {
            name: [
                Link(name, port.host, port.address, port.port, port.use, port.ephemeral)
                for port in ports
                if port.host != name and port.is_tried_by(name, targets[name])
            ]
            for name in self.programs
        }
        tried = self._fleet.gather({name: partial(self._try, name, wanted[name]) for name in wanted}, together=True)
        untried |= {name: self._untried(name, error.problem) for name, error in failures(tried).items()}
        return [*untried.values(), *(link for links in answers(tried).values() for link in links)]

    def measure(self, links: Sequence[Link]) -> list[Link]:
        """Return the links with bandwidth and latency, where both directions of a pair work."""
        good = {(link.source, link.target): link for link in links if link.ephemeral and not link.failure}
        names = [name for name in self._hosts if any(name in pair for pair in good)]
        measured: dict[tuple[str, str], NetworkTestReply] = {}
        for pairs in rounds(names):
            both = [(one, other) for one, other in pairs if (one, other) in good and (other, one) in good]
            for direction in (both, [(other, one) for one, other in both]):
                tasks = {one: partial(self._measure, good[one, other]) for one, other in direction}
                for one, reply in answers(self._fleet.gather(tasks, together=True)).items():
                    measured[one, dict(direction)[one]] = reply
        return [_measured(link, measured) if link.ephemeral else link for link in links]

    def end(self) -> None:
        """End all programs, then wait for each: its ports are free once it has ended."""
        at_once(partial(_end, program) for program in self.programs.values())

    def _close(self) -> None:
        at_once(program.close for program in self.programs.values())

    def _listen(self, name: str) -> list[ListenPort]:
        """Start the program on a host; return its ports with their numbers, less those in use."""
        refused = [port for port in self._ports if port.host == name and port.problem]
        ports = [port for port in self._ports if port.host == name and not port.problem]
        args: NetworkTestArguments = {
            "token": self._token,
            "ports": [{"address": port.address, "port": port.port} for port in ports],
        }
        connection = self._fleet.connection(name)
        program = Program(connection, NETWORK_TEST, args, timeout=self._timeout, cancelled=self._fleet.cancelled)
        self.programs[name] = program
        replies = zip(ports, program.hear()["listening"], strict=True)
        return refused + [_opened(port, reply) for port, reply in replies if not reply.get("taken")]

    def _try(self, name: str, links: Sequence[Link]) -> list[Link]:
        program = self.programs[name]
        program.send({"try": [{"address": link.address, "port": link.port} for link in links]})
        return [replace(link, **tried) for link, tried in zip(links, program.hear()["tried"], strict=True)]

    def _measure(self, link: Link) -> NetworkTestReply:
        program = self.programs[link.source]
        program.send({"measure": {"address": link.address, "port": link.port}})
        return program.hear()

    def _untried(self, name: str, problem: str) -> Link:
        other = next(host for host in self._hosts if host != name)
        address = next(port.address for port in self._ports if port.host == name)
        return Link(name, other, address, 0, DATA, ephemeral=True, failure="not-tried", problem=problem)


def _end(program: Program[NetworkTestReply, NetworkTestOrder]) -> None:
    program.end_input()
    program.allow(END_SECONDS)
    with suppress(HostError, InterruptedByUser):  # its links have the error already
        for _ in program.messages():
            pass


def _opened(port: ListenPort, reply: OpenedPort) -> ListenPort:
    if "problem" in reply:
        return replace(port, problem=f"cannot listen on {port.address}: {reply['problem']}")
    number = reply["port"]
    if number != port.port if port.port else number not in UNPRIVILEGED:
        wanted = f"port {port.port}" if port.port else "an ephemeral port"
        return replace(port, problem=f"it reports that it listens on port {number} of {port.address}, not on {wanted}")
    return replace(port, port=number)


def _measured(link: Link, measured: Mapping[tuple[str, str], NetworkTestReply]) -> Link:
    """Return a link with its measurements. A host measures the bytes that it receives: B measures from A to B."""
    none: NetworkTestReply = {}
    there, back = measured.get((link.source, link.target), none), measured.get((link.target, link.source), none)
    return replace(link, bandwidth=back.get("bandwidth"), latency=there.get("latency"))


def peers(hosts: Sequence[str], head: str) -> dict[str, set[str]]:
    """Return the hosts that each host connects to: up to 64 hosts all others, else a sample.

    The sample is the head (which connects to all), its neighbours, and 4 others, the same every time: a fault that was
    repaired is tested again.
    """
    if len(hosts) <= ALL_PAIRS:
        return {name: set(hosts) - {name} for name in hosts}
    sample = {name: {head, *_others(name, hosts)} for name in hosts}
    for one, other in zip(hosts, [*hosts[1:], hosts[0]], strict=True):
        sample[one].add(other)
        sample[other].add(one)
    if head in sample:
        sample[head] = set(hosts)
    return {name: targets - {name} for name, targets in sample.items()}


def _others(name: str, hosts: Sequence[str]) -> list[str]:
    return sorted(hosts, key=lambda other: hashlib.sha256(f"{name}\0{other}".encode()).digest())[:PEERS]


def rounds(names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return rounds of disjoint pairs: up to 8 hosts all pairs (by the circle method), else the edges of a ring."""
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
