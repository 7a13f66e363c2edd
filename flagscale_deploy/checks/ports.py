"""Check that planned ports are free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flagscale_deploy.checks.conditions import as_finding, on, passed, unplanned
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.plan.model import Server
from flagscale_deploy.plan.ports import WORKER_PORTS
from flagscale_deploy.plan.rank import API_PORT, METRICS_PORT


def ports(context: Context) -> Iterator[Finding]:
    """Check that the configured ports of engines, router and Ray are free; one in Ray's worker range is a warning."""
    for fault in (fault for fault in context.faults if fault.check == "ports"):
        finding = replace(as_finding(context, fault), expected="a free port")
        if finding.host in context.facts and fault.taken_port is not None:
            look = on(context, finding.host, f"ss -ltnp sport = :{fault.taken_port}")
            finding = replace(finding, remedy=f"{finding.remedy}: {look}")
        yield finding
    yield from _among_workers(context)
    if context.plan:
        needed = dict.fromkeys(port for server in context.plan.servers for port in _ports(server))
        needed |= {context.plan.ray.port: None} if context.plan.ray.enabled else {}
        free = "is free" if len(needed) == 1 else "are free"
        yield passed(f"{', '.join(map(str, needed))} {free}" if needed else "no port is needed")


def _among_workers(context: Context) -> Iterator[Finding]:
    """Yield servers on Ray's nodes whose port Ray's workers may take first."""
    if context.plan is None or not context.plan.ray.enabled:
        return
    for rank in (rank for server in context.plan.servers for rank in server.ranks):
        port = rank.ports.get(API_PORT)
        if port in WORKER_PORTS:
            yield Finding(
                rank.host,
                f"port {port} of {rank.name} is in the range of Ray's workers, which start first",
                f"a port outside {WORKER_PORTS.start} to {WORKER_PORTS.stop - 1}",
                "choose another port",
                "warning",
            )


def _ports(server: Server) -> list[int]:
    return [port for rank in server.ranks for use, port in rank.ports.items() if use != METRICS_PORT]


PORTS = (Check("ports", "ports", ports, "free on the hosts that need them", unplanned("ports")),)
