"""Show `ps`: the deployments on the hosts of an inventory, and a map of their GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby

from flagscale_deploy.deploy.overview import Gpu, Overview, last_change, replicas_ready
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.status import cut, lines_of
from flagscale_deploy.remote.messages.ps import OthersDeployment
from flagscale_deploy.support.units import GIB, MIB, counted, format_time

COLUMNS = ("NAME", "MODELS", "STATE", "READY", "ENDPOINT", "GPUS", "OWNER", "SINCE", "LAST CHANGE")
ENDED = ("stopped", "absent")


def show_ps(console: Console, overview: Overview, *, every: bool) -> None:
    """Show deployments and GPUs; `every`: those that were stopped, too."""
    own, hidden = list(_own(console, overview, every=every)), 0
    if not every:
        hidden = sum(status.state in ENDED for status in overview.deployments)
    stopped = f", {hidden} stopped (--all shows them)" if hidden else ""
    console.table(f"{counted(len(own), 'deployment')}{stopped}", COLUMNS, [*own, *_others(overview)])
    if overview.gpus:
        free = sum(gpu.free for gpu in overview.gpus)
        console.print()
        title = f"{counted(len(overview.gpus), 'GPU')}, {free} free"
        console.table(title, ("HOST", "GPUS", "TYPE", "HOLDER", "MEMORY", "USE"), _gpus(console, overview.gpus))
    for problems in (overview.gpu_errors, overview.unknown):
        for host, problem in problems.items():
            console.error(f"{host}: {problem}")


def show_watch(console: Console, overview: Overview, *, every: bool) -> None:
    """Show a round of `ps --watch` in place of the last one: what a terminal is high enough for."""
    if not console.draws:
        console.print(f"── {time.strftime('%H:%M:%S')}")
        show_ps(console, overview, every=every)
        return
    lines = lines_of(console, lambda: show_ps(console, overview, every=every))
    console.redraw(cut(console, lines, console.out.height - 1, "ps"))


def _own(console: Console, overview: Overview, *, every: bool) -> Iterator[tuple[object, ...]]:
    for status in overview.deployments:
        if status.state in ENDED and not every:
            continue
        ready, wanted = replicas_ready(status)
        changed = last_change(status, overview.last_events)
        yield (
            status.deployment,
            status.models,
            console.state(status.state),
            f"{ready} of {wanted}" if wanted else "",
            status.endpoints,
            sum(len(host.gpus) for host in status.hosts) or "",
            status.operator or "",
            format_time(status.started_at, "%m-%d %H:%M") if status.started_at else "",
            f"{changed[1]}, {format_time(changed[0], '%m-%d %H:%M')}" if changed else "",
        )


def _others(overview: Overview) -> Iterator[tuple[object, ...]]:
    """Yield rows for what other users serve: one for each deployment, or for a user's unnamed engines and Ray."""
    groups: dict[tuple[str, str], list[tuple[str, OthersDeployment]]] = {}
    for host, others in overview.others.items():
        for other in others:
            groups.setdefault((other["user"], other["deployment"]), []).append((host, other))
    for (user, name), members in sorted(groups.items()):
        gpus = sum(gpu.user == user and gpu.deployment == name for gpu in overview.gpus)
        yield (
            name or "?",
            tuple(dict.fromkeys(model for _, other in members for model in other["models"])),
            "running",
            "",
            tuple(dict.fromkeys(other["endpoint"] for _, other in members if other["endpoint"])),
            gpus or "",
            f"{user} on {', '.join(host for host, _ in members)}",
            format_time(min(other["since"] for _, other in members), "%m-%d %H:%M"),
            counted(sum(other["processes"] for _, other in members), "process"),
        )


def _gpus(console: Console, gpus: tuple[Gpu, ...]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each run of GPUs of a host that are alike and have the same holder."""
    for (host, name, holder), grouped in groupby(gpus, key=lambda gpu: (gpu.host, gpu.name, _holder(gpu))):
        members = list(grouped)
        first, last = members[0].index, members[-1].index
        used, total = (sum(figures) for figures in zip(*map(_memory, members), strict=True))
        shares = [gpu.utilization for gpu in members if gpu.utilization is not None]
        yield (
            host,
            str(first) if first == last else f"{first}-{last}",
            name,
            console.state("free") if holder == "free" else holder,
            f"{used * MIB / GIB:.0f} of {total * MIB / GIB:.0f} GiB",
            f"{sum(shares) / len(shares):.0f} %" if shares else "",
        )


def _memory(gpu: Gpu) -> tuple[int, int]:
    return gpu.memory_used_mib, gpu.memory_total_mib


def _holder(gpu: Gpu) -> str:
    """Return who holds a GPU: `qwen`, `llama (bob)`, `bob: 4711 python train.py`."""
    if gpu.free:
        return "free"
    if gpu.deployment:
        return f"{gpu.deployment} ({gpu.user})" if gpu.user else gpu.deployment
    processes = ", ".join(text[:60] for text in gpu.processes[:3])
    return f"{gpu.user}: {processes}" if gpu.user else processes or "processes that cannot be seen"
