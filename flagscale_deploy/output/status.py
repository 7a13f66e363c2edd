"""Show the status of a deployment."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.status import Status
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.logs import show_diagnosis
from flagscale_deploy.support.units import format_duration, format_time


def show_status(console: Console, status: Status) -> None:
    """Show `status`: instances, Ray nodes and hosts."""
    ended = f", stopped {format_time(status.stopped_at)}" if status.stopped_at else ""
    since = f", since {format_time(status.started_at)}" if status.started_at else ""
    (run,) = console.clean_lines([f"  run {status.run_id or '-'} of {status.operator or '-'}{since}{ended}"])
    console.out.print(Text.assemble(*console.clean_lines([f"{status.deployment}: "]), console.state(status.state), run))
    if status.note:
        console.note(status.note)
    if status.instances:
        servers = (*status.instances, *status.routers)
        restarts = ("RESTARTS",) if any(server.restarts is not None for server in servers) else ()
        rows = [
            (
                server.name,
                console.state(server.state),
                server.driver,
                _gpus(server.gpus),
                *((_restarts(server),) if restarts else ()),
                server.endpoint,
                server.problem or _load(server.metrics),
            )
            for server in servers
        ]
        console.print()
        console.table("Instances", ("INSTANCE", "STATE", "DRIVER", "GPUS", *restarts, "ENDPOINT", ""), rows)
    if status.ray is not None:
        console.print()
        nodes = [(address, f"{gpus:g}") for address, gpus in status.ray.get("nodes", {}).items()]
        missing = status.ray.get("missing") or ([status.ray["why"]] if status.ray.get("why") else [])
        console.table("Ray nodes" + "".join(f"; missing {node}" for node in missing), ("ADDRESS", "GPUS"), nodes)
    console.print()
    hosts = [
        (
            host.host,
            console.state(host.state),
            ", ".join(host.roles),
            host.processes,
            "" if host.uptime is None else format_duration(host.uptime),
            host.problem,
        )
        for host in status.hosts
    ]
    console.table("Hosts", ("HOST", "STATE", "ROLES", "PROCESSES", "UPTIME", ""), hosts)
    if status.diagnosis is not None:
        console.print()
        show_diagnosis(console, status.diagnosis)


def _restarts(server: InstanceStatus) -> str:
    """Return how often a server was restarted, and when last."""
    if server.restarts is None or server.last_restart is None:
        return "" if server.restarts is None else "0"
    return f"{server.restarts}, {format_time(server.last_restart, '%m-%d %H:%M:%S')}"


def _load(metrics: Mapping[str, float] | None) -> str:
    """Return an engine's load from those of its metrics that are known."""
    if not metrics:
        return ""
    parts = [
        f"{metrics[name]:{form}} {text}" if text else f"KV cache {metrics[name]:{form}}"
        for name, form, text in (
            ("running", ".0f", "running"),
            ("waiting", ".0f", "waiting"),
            ("kv_cache", ".0%", ""),
            ("generation_tokens", ".0f", "tokens generated"),
        )
        if name in metrics
    ]
    return ", ".join(parts)


def _gpus(gpus: Mapping[str, tuple[int, ...]]) -> str:
    return " ".join(f"{host}[{','.join(map(str, indexes))}]" for host, indexes in gpus.items() if indexes) or "none"
