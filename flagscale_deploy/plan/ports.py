"""Assign ports on the hosts that need them: configured ones, or the next free ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.claims import held_ports, others, own
from flagscale_deploy.plan.model import Placement

HIGHEST = 65535
Avoided = range | tuple[int, ...]
WORKER_PORTS = range(10002, 20000)
"""Ports of Ray's workers (`ray start --help`, 2.60: --min-worker-port, --max-worker-port). A worker may take any of
them, and starts before servers do (https://github.com/vllm-project/vllm/issues/8204). Ray refuses to start with one of
its other ports in this range."""


class Ports:
    """Ports that are taken on each host: by others (probed or recorded), and by what has been planned so far.

    `own` are those that the deployment has now, by host and use: each is preferred for its use, and left to it.
    """

    def __init__(
        self,
        facts: Mapping[str, Facts],
        deployment: str,
        faults: list[Fault],
        own: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self._facts, self._deployment, self._faults, self._own = facts, deployment, faults, own or {}
        self._planned: dict[tuple[str, int], str] = {}
        self._assigned: set[tuple[str, int, str]] = set()
        self._held: dict[str, dict[int, str]] = {}
        self.chosen: dict[str, dict[str, int]] = {}
        """The ports that `next_free` took, by host and use."""
        self._passed: dict[tuple[object, ...], int] = {}
        """Up to where no port is free, by what was asked for: planned ones stay taken."""

    def fixed(self, host: str, port: int, use: str, where: str) -> int:
        """Take exactly this port; one that others use is a fault. The same use may take its port again."""
        planned = self._planned.setdefault((host, port), use)
        if (host, port, use) in self._assigned:
            return port
        self._assigned.add((host, port, use))
        if planned != use:
            self._faults.append(Fault(where, f"port {port} on {host} is assigned twice: to {planned} and {use}",
                                      "give one of them another port", "ports", host))  # fmt: skip
        elif (user := self._holder(host, port)) is not None:
            self._faults.append(Fault(where, f"port {port} on {host}, for {use}, is in use by {user}",
                                      "choose another port, or end the process that uses it", "ports", host,
                                      taken_port=port))  # fmt: skip
        return port

    def next_free(
        self, host: str, first: int, use: str, *, avoiding: Avoided = (), span: int = 1, also: Iterable[str] = ()
    ) -> int:
        """Take this port or the first free one above it, except those to avoid; if there is none, add a fault.

        With `span`, it is the first of so many ports in a row; with `also`, it is free on these hosts, too.
        """
        hosts = (host, *also)

        def fits(port: int) -> bool:
            row = range(port, port + span)
            return not any(at in avoiding or self._is_taken(name, at) for at in row for name in hosts)

        asked = (hosts, first, span, avoiding)
        port = self._own.get(host, {}).get(use, 0)
        if not first <= port <= HIGHEST or not fits(port):
            port = self._passed.get(asked, first)
            left = {number for name in hosts for to, number in self._own.get(name, {}).items() if to != use}
            while port <= HIGHEST and (port in left or not fits(port)):
                port += 1
            self._passed[asked] = port
        if port > HIGHEST:
            self._faults.append(Fault(host, f"no port from {first} on is free for {use}",
                                      "end the processes that use them: ss -ltnp", "placement"))  # fmt: skip
        self.chosen.setdefault(host, {})[use] = port
        self._planned |= dict.fromkeys(((name, at) for at in range(port, port + span) for name in hosts), use)
        return port

    def _is_taken(self, host: str, port: int) -> bool:
        return (host, port) in self._planned or self._holder(host, port) is not None

    def _holder(self, host: str, port: int) -> str | None:
        """Return a description of who uses a port, None if it is free; the deployment's own use does not count."""
        if host not in self._held:
            self._held[host] = dict(self._holders(self._facts[host])) if host in self._facts else {}
        return self._held[host].get(port)

    def _holders(self, facts: Facts) -> Iterator[tuple[int, str]]:
        """Yield the ports that others use, and by whom, what counts last; other users may hold thousands of them.

        While the deployment runs, those that its record claims are its own: Ray's dashboard renames itself, which
        overwrites its environment, and so its marker.
        """
        records = own(facts, self._deployment) if self._own else ()
        ours = {port for record in records for port in held_ports(record)}
        for record in reversed(list(others(facts, self._deployment))):
            yield from ((port, f"deployment {record['deployment']}") for port in held_ports(record))
        for listener in reversed(facts.ports):
            if not listener.run.startswith(f"{self._deployment}/") and listener.port not in ours:
                pid = f" (pid {listener.pid})" if listener.pid else ""
                yield listener.port, f"{listener.command or 'a process'}{pid}"


def plan_engine_ports(
    placements: Iterable[Placement], models: Mapping[str, ModelSpec], ports: Ports, avoiding: Avoided = ()
) -> dict[str, int]:
    """Return the port of each instance by its name: the model's own, or the next free for more replicas on a host.

    Configured ports are assigned before chosen ones, whatever the order of the models; chosen ones are not among those
    to avoid.
    """
    placements = list(placements)
    first = takes_its_own(placements, models)
    planned = {
        placement.name: ports.fixed(
            placement.driver, models[placement.label].port, placement.name, models[placement.label].where
        )
        for placement in first
    }
    for placement in placements:
        if placement.name not in planned:
            first_port = models[placement.label].port
            planned[placement.name] = ports.next_free(placement.driver, first_port, placement.name, avoiding=avoiding)
    return planned


def takes_its_own(placements: Iterable[Placement], models: Mapping[str, ModelSpec]) -> list[Placement]:
    """Return the placements that take exactly their model's port: the first of a model on each host."""
    named = [placement for placement in placements if not models[placement.label].port_auto]
    firsts = {(placement.model, placement.driver): placement for placement in reversed(named)}
    return [placement for placement in named if firsts[placement.model, placement.driver] is placement]
