"""A deployment as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.text import Text

from flagscale_deploy.deploy.status import InstanceStatus, Status
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.logs import show_diagnosis
from flagscale_deploy.support.units import format_duration


def show_status(console: Console, status: Status) -> None:
    """`status`."""
    since = (
        f", since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.started_at))}" if status.started_at else ""
    )
    run = console.clean(f"  run {status.run_id or '-'} of {status.operator or '-'}{since}")
    console.out.print(Text.assemble(console.clean(f"{status.deployment}: "), console.state(status.state), run))
    if status.instances:
        servers = (*status.instances, *status.routers)
        counted = ("RESTARTS",) if any(each.restarts is not None for each in servers) else ()
        rows = [
            (
                each.name,
                console.state(each.state),
                each.driver,
                _gpus(each.gpus),
                *((_restarts(each),) if counted else ()),
                each.endpoint,
                each.problem or _load(each.metrics),
            )
            for each in servers
        ]
        console.print()
        console.table("Instances", ("INSTANCE", "STATE", "DRIVER", "GPUS", *counted, "ENDPOINT", ""), rows)
    if status.ray is not None:
        console.print()
        nodes = [(address, f"{gpus:g}") for address, gpus in status.ray.get("nodes", {}).items()]
        missing = status.ray.get("missing") or ([status.ray["why"]] if status.ray.get("why") else [])
        console.table("Ray nodes" + "".join(f"; missing {each}" for each in missing), ("ADDRESS", "GPUS"), nodes)
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
    """How often, and when last."""
    if server.restarts is None or server.last_restart is None:
        return "" if server.restarts is None else "0"
    return f"{server.restarts}, {time.strftime('%m-%d %H:%M:%S', time.localtime(server.last_restart))}"


def _load(metrics: Mapping[str, float] | None) -> str:
    """What an engine has to do, of its metrics as far as it has them."""
    if not metrics:
        return ""
    said = [
        f"{metrics[name]:{form}} {text}" if text else f"KV cache {metrics[name]:{form}}"
        for name, form, text in (
            ("running", ".0f", "running"),
            ("waiting", ".0f", "waiting"),
            ("kv_cache", ".0%", ""),
            ("generation_tokens", ".0f", "tokens generated"),
        )
        if name in metrics
    ]
    return ", ".join(said)


def _gpus(gpus: Mapping[str, tuple[int, ...]]) -> str:
    return " ".join(f"{host}[{','.join(map(str, indexes))}]" for host, indexes in gpus.items() if indexes) or "none"
