"""Show the status of a deployment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from rich.text import Text

from flagscale_deploy.deploy.change_steps import STEPS
from flagscale_deploy.deploy.overview import Overview
from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.status import HostStatus, Status
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.logs import show_diagnosis
from flagscale_deploy.support.shell import join
from flagscale_deploy.support.units import counted, format_duration, format_time


def show_status(console: Console, status: Status) -> None:
    """Show `status`: instances, Ray nodes and hosts."""
    _headline(console, status)
    if status.note:
        console.note(status.note)
    _servers(console, status)
    if console.verbose:
        console.print(*(f"  {server.name}: {join(server.argv)}" for server in status.instances if server.argv))
        _ranks(console, status)
    _ray(console, status)
    console.print()
    _hosts(console, status.hosts)
    if status.diagnosis is not None:
        console.print()
        show_diagnosis(console, status.diagnosis)


def show_listing(console: Console, listing: Overview) -> None:
    """Show `status` without a name: a row for each deployment."""
    rows = [
        (
            status.deployment,
            console.state(status.state),
            status.operator or "",
            format_time(status.started_at) if status.started_at else "",
            ", ".join(host.host for host in status.hosts if host.roles),
            ", ".join(status.endpoints),
        )
        for status in listing.deployments
    ]
    console.table(counted(len(rows), "deployment"), ("NAME", "STATE", "OF", "SINCE", "HOSTS", "ENDPOINT"), rows)
    for status in listing.deployments:
        for line in _failure(status):
            console.print(f"{status.deployment}: {line}")
    for host, problem in listing.unknown.items():
        console.error(f"{host}: not known: {problem}")


def show_watch(console: Console, status: Status) -> None:
    """Show a round of `status --watch`, with its time: what a terminal is high enough for, trouble first."""
    at = time.strftime("%H:%M:%S")
    if not console.draws:
        console.print(f"── {at}")
        show_status(console, status)
        return

    def trouble() -> None:
        if rows := list(_troubles(console, status)):
            console.print()
            console.table("Trouble", ("WHERE", "STATE", ""), rows)
        if status.diagnosis is not None:
            console.print()
            show_diagnosis(console, status.diagnosis)

    height = console.out.height - 1
    head = lines_of(console, lambda: _headline(console, status, at))
    lines = [
        *lines_of(console, trouble),
        *lines_of(console, lambda: _servers(console, status)),
        *lines_of(console, lambda: _ray(console, status)),
    ]
    hosts = ["", *lines_of(console, lambda: _hosts(console, status.hosts))]
    if sum(_rows(console, [*head, *lines, *hosts])) > height:
        counts = Counter(host.state for host in status.hosts)
        text = ", ".join(f"{number} {state}" for state, number in counts.items())
        head, hosts = [*head, *lines_of(console, lambda: console.print(f"Hosts: {text}"))], []
    console.redraw(cut(console, [*head, *lines, *hosts], height, "status"))


def _headline(console: Console, status: Status, at: str = "") -> None:
    ended = f", stopped since {format_time(status.stopped_at)}" if status.stopped_at and not status.failure else ""
    since = f", since {format_time(status.started_at)}" if status.started_at else ""
    (run,) = console.clean_lines([f"  run {status.run_id or '-'} of {status.operator or '-'}{since}{ended}"])
    name, time_of_look = console.clean_lines([f"{status.deployment}: ", f"  ({at})" if at else ""])
    console.out.print(Text.assemble(name, console.state(status.state), time_of_look, run))
    for line in (*_failure(status), *_change(status)):
        console.print(f"  {line}")


def _change(status: Status) -> Iterator[str]:
    """Yield what is changed of the deployment, by whom and since when, and how far that came."""
    if status.change is not None:
        change, at = status.change, status.change.get("at")
        since = f", since {format_time(at)}" if at is not None else ""
        step = STEPS.get(change["step"], change["step"])
        groups = f": {', '.join(change['groups'])}: {step}" if change["groups"] else ""
        yield f"change {change['run_id']} of {change['operator']}{since}{groups}"


def _failure(status: Status) -> Iterator[str]:
    """Yield when and why the last run failed, and what to do, where it was stopped for it."""
    if status.failure is not None:
        yield f"failed at {format_time(status.failure['at'])}: {status.failure['cause']}"
        yield f"→ {status.failure_remedy}"


def _servers(console: Console, status: Status) -> None:
    if not status.instances:
        return
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


def _ranks(console: Console, status: Status) -> None:
    """Show the ranks of instances that have several."""
    rows = [
        (
            f"{server.name} {'spare' if rank.role == 'spare' else f'rank {rank.number}'}",
            console.state(rank.state),
            rank.role,
            rank.host,
            ", ".join(map(str, rank.gpus)),
            rank.problem,
        )
        for server in status.instances
        if len(server.ranks) > 1
        for rank in (*server.ranks, *server.spares)
    ]
    if rows:
        console.print()
        console.table("Ranks", ("RANK", "STATE", "ROLE", "HOST", "GPUS", ""), rows)


def _ray(console: Console, status: Status) -> None:
    if status.ray is not None:
        console.print()
        nodes = [(address, f"{gpus:g}") for address, gpus in status.ray.get("nodes", {}).items()]
        missing = status.ray.get("missing") or ([status.ray["why"]] if status.ray.get("why") else [])
        console.table("Ray nodes" + "".join(f"; missing {node}" for node in missing), ("ADDRESS", "GPUS"), nodes)


def _hosts(console: Console, hosts: Iterable[HostStatus]) -> None:
    rows = [
        (
            host.host,
            console.state(host.state),
            ", ".join(host.roles),
            host.processes,
            "" if host.uptime is None else format_duration(host.uptime),
            host.problem,
        )
        for host in hosts
    ]
    console.table("Hosts", ("HOST", "STATE", "ROLES", "PROCESSES", "UPTIME", ""), rows)


def _troubles(console: Console, status: Status) -> Iterator[tuple[object, ...]]:
    """Yield name, state and problem of what is not as it should be."""
    if status.note:
        yield "", "", status.note
    for server in (*status.instances, *status.routers):
        if server.problem or server.state not in ("ready", "finished", "stopped"):
            yield server.name, console.state(server.state), server.problem
    for host in status.hosts:
        if host.problem or host.state in ("UNKNOWN", "dead"):
            yield host.host, console.state(host.state), host.problem


def lines_of(console: Console, show: Callable[[], None]) -> list[str]:
    """Return the lines that a function prints."""
    with console.out.capture() as shown:
        show()
    return shown.get().splitlines()


def _rows(console: Console, lines: Sequence[str]) -> list[int]:
    """Return how many rows of the terminal each line takes."""
    width = max(1, console.out.width)
    return [max(1, -(-Text.from_ansi(line).cell_len // width)) for line in lines]


def cut(console: Console, lines: Sequence[str], height: int, command: str) -> list[str]:
    """Return the first lines that fit, with a last one that says how many do not, and which command shows them."""
    rows = _rows(console, lines)
    if sum(rows) <= height:
        return list(lines)
    fitting = sum(total < height for total in accumulate(rows))
    return [*lines[:fitting], f"… {counted(len(lines) - fitting, 'more line')}: `{command}` without -w shows all"]


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
