"""Ports on the hosts that need them: as asked for, or the next free one where nobody asked."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.observation import Facts
from flagscale_deploy.plan.model import Placement
from flagscale_deploy.plan.recorded import others

HIGHEST = 65535


class Ports:
    """What is taken on each host: by others (seen by the probe, or recorded) and by what has been planned so far."""

    def __init__(self, facts: Mapping[str, Facts], deployment: str, faults: list[Fault]) -> None:
        self._facts, self._deployment, self._faults = facts, deployment, faults
        self._planned: dict[tuple[str, int], str] = {}

    def fixed(self, host: str, port: int, use: str, where: str) -> int:
        """Take this very port; somebody else's is a fault."""
        if (planned := self._planned.get((host, port))) is not None:
            self._faults.append(Fault(where, f"port {port} on {host} is taken twice: by {planned} and {use}",
                                      "give one of them another port", "ports", host))  # fmt: skip
        elif (holder := self._holder(host, port)) is not None:
            self._faults.append(Fault(where, f"port {port} on {host}, for {use}, is in use by {holder}",
                                      "choose another port, or end what holds it", "ports", host))  # fmt: skip
        self._planned[host, port] = use
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
            if port in record.get("ports", {}).values():
                return f"deployment {record['deployment']}"
        return None


def plan_engine_ports(
    placements: Iterable[Placement], models: Mapping[str, ModelSpec], ports: Ports
) -> dict[tuple[str, int], int]:
    """The port of each (model, replica): the model's own on every host, the next free for a further replica there."""
    planned: dict[tuple[str, int], int] = {}
    seen: set[tuple[str, str]] = set()
    for each in placements:
        model, use = models[each.model], f"{each.model}/{each.replica}"
        if model.port_auto or (each.model, each.driver) in seen:
            planned[each.model, each.replica] = ports.next_free(each.driver, model.port, use)
        else:
            planned[each.model, each.replica] = ports.fixed(each.driver, model.port, use, model.where)
        seen.add((each.model, each.driver))
    return planned
