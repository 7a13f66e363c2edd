"""Ports on the hosts that need them: as asked for, or the next free one where nobody asked."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.claims import held_ports, others
from flagscale_deploy.plan.model import Placement

HIGHEST = 65535
WORKER_PORTS = range(10002, 20000)
"""What Ray's workers listen on (`ray start --help`, 2.60: --min-worker-port, --max-worker-port): each on any of them,
and before a server is started (https://github.com/vllm-project/vllm/issues/8204). Ray refuses to start with one of its
own among them."""


class Ports:
    """What is taken on each host: by others (seen by the probe, or recorded) and by what has been planned so far."""

    def __init__(self, facts: Mapping[str, Facts], deployment: str, faults: list[Fault]) -> None:
        self._facts, self._deployment, self._faults = facts, deployment, faults
        self._planned: dict[tuple[str, int], str] = {}
        self._given: set[tuple[str, int, str]] = set()

    def fixed(self, host: str, port: int, use: str, where: str) -> int:
        """Take this very port; somebody else's is a fault. One that was taken for the same use is its own."""
        planned = self._planned.setdefault((host, port), use)
        if (host, port, use) in self._given:
            return port
        self._given.add((host, port, use))
        if planned != use:
            self._faults.append(Fault(where, f"port {port} on {host} is taken twice: by {planned} and {use}",
                                      "give one of them another port", "ports", host))  # fmt: skip
        elif (holder := self._holder(host, port)) is not None:
            self._faults.append(Fault(where, f"port {port} on {host}, for {use}, is in use by {holder}",
                                      "choose another port, or end what holds it", "ports", host,
                                      taken_port=port))  # fmt: skip
        return port

    def next_free(self, host: str, first: int, use: str, *, avoiding: Container[int] = ()) -> int:
        """Take this port or the first free one above it, none of those to be avoided; no such port is a fault."""
        port = first
        while port <= HIGHEST and (port in avoiding or self._is_taken(host, port)):
            port += 1
        if port > HIGHEST:
            self._faults.append(Fault(host, f"no port is free from {first} on, for {use}",
                                      "end what holds them: ss -ltnp", "placement"))  # fmt: skip
        self._planned[host, port] = use
        return port

    def _is_taken(self, host: str, port: int) -> bool:
        return (host, port) in self._planned or self._holder(host, port) is not None

    def _holder(self, host: str, port: int) -> str | None:
        """Who has a port, in words; what the deployment itself holds (planned while it runs) is free to it."""
        if host not in self._facts:
            return None
        facts = self._facts[host]
        for each in facts.ports:
            if each.port == port and not each.run.startswith(f"{self._deployment}/"):
                return f"{each.command or 'a process'}" + (f" (pid {each.pid})" if each.pid else "")
        for record in others(facts, self._deployment):
            if port in held_ports(record):
                return f"deployment {record['deployment']}"
        return None


def plan_engine_ports(
    placements: Iterable[Placement], models: Mapping[str, ModelSpec], ports: Ports, avoiding: Container[int] = ()
) -> dict[tuple[str, int], int]:
    """The port of each (model, replica): the model's own on every host, the next free for a further replica there, none
    of those to be avoided.

    Those that the configuration names come before those that are chosen, whatever the order of the models.
    """
    placements = list(placements)
    first = takes_its_own(placements, models)
    planned = {
        (each.model, each.replica): ports.fixed(
            each.driver, models[each.model].port, engine_use(each), models[each.model].where
        )
        for each in first
    }
    for each in placements:
        if each not in first:
            port = ports.next_free(each.driver, models[each.model].port, engine_use(each), avoiding=avoiding)
            planned[each.model, each.replica] = port
    return planned


def takes_its_own(placements: Iterable[Placement], models: Mapping[str, ModelSpec]) -> list[Placement]:
    """Those that take the very port that their model names: the first of a model on each host."""
    named = [each for each in placements if not models[each.model].port_auto]
    firsts = {(each.model, each.driver): each for each in reversed(named)}
    return [each for each in named if firsts[each.model, each.driver] is each]


def engine_use(placement: Placement) -> str:
    """What a replica is called where its port is spoken of."""
    return f"{placement.model}/{placement.replica}"
