"""Check memory, shared memory, limits and disks of every host against what runs there.

Sources: Ray 2.60 asks for 8192 open files and raises the soft limit to 65536 by itself (`ray/_private/worker.py`,
https://github.com/ray-project/ray/pull/11515), vLLM 0.32 to 65535 (`vllm/utils/system_utils.py`): what binds is the
hard limit. Ray kills workers once 95 % of the memory is in use (RAY_memory_usage_threshold). vLLM's queue to its
ranks takes ten chunks of 16 MiB (`shm_broadcast.py`), Ray's object store 75 MiB at least, NCCL 4 MiB and more a rank;
docker gives 64 MiB, and NCCL's own advice is `--shm-size=1g --ulimit memlock=-1`
(https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/runtime_and_mpi_issues.html).
"""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import (
    engine_hosts,
    environment,
    no_facts,
    no_plan,
    on,
    passed,
    ray_hosts,
    spanning,
)
from flagscale_deploy.checks.rank_memory import ranks_of, ranks_on
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.support.units import GIB, MIB, format_size

KILL_SHARE = 0.05
RAY_SHM, QUEUE_SHM, RANK_SHM = 96 * MIB, 160 * MIB, 8 * MIB
OPEN_FILES = 8192
LOCKED = GIB
DISK, TMP, TMP_ROOMY = GIB, GIB, 5 * GIB


def memory(context: Context) -> Iterator[Finding]:
    """Check that a host has memory for its ranks, with what they keep there, and 5 % more where Ray runs.

    Without GPUs, ranks keep weights and cache there; with GPUs, what they offload. Above 95 % Ray kills workers.
    """
    ray = ray_hosts(context)
    for name, facts in context.facts.items():
        groups = list(ranks_on(context, name))
        need = sum(ranks.bytes for ranks in groups)
        why = " + ".join(ranks.description for ranks in groups) or "no rank"
        if name in ray:
            need, why = max(need, facts.memory_total * KILL_SHARE), f"{why}, and 5 % for Ray"
        if facts.memory_total and facts.memory_available < need:
            look = on(context, name, "ps -eo pid,user,rss,args --sort=-rss | head")
            yield Finding(
                name,
                f"{format_size(facts.memory_available)} of {format_size(facts.memory_total)} available",
                f"{format_size(need)}: {why}",
                f"end processes that use it: {look}"
                if facts.memory_total >= need
                else "choose a host with more memory",
            )
    yield from _least([facts.memory_available for facts in context.facts.values()], "available")


def shared_memory(context: Context) -> Iterator[Finding]:
    """Check that /dev/shm has room for Ray's object store, vLLM's queues and NCCL; containers often have 64 MiB."""
    ray = ray_hosts(context)
    for name, facts in context.facts.items():
        need, why = 0, []
        if name in ray:
            need, why = RAY_SHM, ["Ray"]
        for instance in engine_hosts(context).get(name, ()):
            if (ranks := ranks_of(context, instance, name)) > 1:
                need, why = need + QUEUE_SHM + ranks * RANK_SHM, [*why, f"{ranks} ranks of {instance.name}"]
        if facts.shm_total and facts.shm_free < need:
            cure = on(context, name, "mount", "-o", f"remount,size={max(need, GIB) // MIB}M", "/dev/shm", root=True)
            if context.inventory[name].container:
                cure = "start the container with --shm-size=1g or --ipc=host"
            elif facts.shm_total >= need:
                cure = on(context, name, "ls -lS /dev/shm | head") + "   (and remove leftover files)"
            yield Finding(
                name,
                f"{format_size(facts.shm_free)} of {format_size(facts.shm_total)} free in /dev/shm",
                f"{format_size(need)} for {', '.join(why)}",
                cure,
            )
    yield from _least([facts.shm_free for facts in context.facts.values()], "free")


def open_files(context: Context) -> Iterator[Finding]:
    """Check that processes may open as many files as Ray needs; Ray and vLLM raise the soft limit themselves."""
    for name, facts in context.facts.items():
        if 0 <= facts.open_files < OPEN_FILES:
            problem = f"ulimit -Hn is {facts.open_files}"
            yield Finding(
                name, problem, f"at least {OPEN_FILES}, better 65536", _raise_limit(context, name, "nofile 65536")
            )
    limits = [facts.open_files for facts in context.facts.values() if facts.open_files >= 0]
    yield passed(f"{min(limits)} or more" if limits else "no limit")


def locked_memory(context: Context) -> Iterator[Finding]:
    """Check that processes may lock memory for InfiniBand, where all hosts of an instance have it."""
    for name in _on_infiniband(context):
        facts = context.facts[name]
        may_anyway = facts.uid == 0 and facts.user == "root"  # CAP_IPC_LOCK
        if not may_anyway and 0 <= facts.locked_memory < LOCKED:
            problem = f"ulimit -Hl is {format_size(facts.locked_memory)}, with InfiniBand"
            yield Finding(name, problem, "unlimited", _raise_limit(context, name, "memlock unlimited"))


def disk(context: Context) -> Iterator[Finding]:
    """Check that the home directory has room for logs and state."""
    for name, facts in context.facts.items():
        if facts.disk_free < DISK:
            home = facts.home or "~"
            yield Finding(
                name,
                f"{format_size(facts.disk_free)} free in {home}",
                format_size(DISK),
                f"free space: {on(context, name, 'du -xh --max-depth=2 ~ | sort -h | tail')}",
            )
    yield from _least([facts.disk_free for facts in context.facts.values()], "free")


def tmp(context: Context) -> Iterator[Finding]:
    """Check that /tmp has room, where Ray keeps logs and spills objects; less than 5 GiB is a warning."""
    for name, facts in context.facts.items():
        reported = facts.disk_free < DISK and abs(facts.disk_free - facts.tmp_free) < 16 * MIB  # one file system
        if facts.tmp_free < TMP_ROOMY and not reported:
            yield Finding(
                name,
                f"{format_size(facts.tmp_free)} free in /tmp",
                format_size(TMP_ROOMY),
                f"free space: {on(context, name, 'du -xh --max-depth=1 /tmp | sort -h | tail')}",
                "failed" if facts.tmp_free < TMP else "warning",
            )
    yield from _least([facts.tmp_free for facts in context.facts.values()], "free")


def _raise_limit(context: Context, name: str, limit: str) -> str:
    user = context.facts[name].user
    line = f"{user if user.isidentifier() else '*'} - {limit}"
    file = "/etc/security/limits.d/flagscale-deploy.conf"
    return on(context, name, f"echo '{line}' | {{sudo}}tee -a {file}", root=True) + "   (then log in again)"


def _on_infiniband(context: Context) -> list[str]:
    """Return the hosts of instances that use InfiniBand."""
    using = [instance for instance in spanning(context) if _uses_infiniband(context, instance)]
    return list(dict.fromkeys(name for instance in using for name in instance.hosts))


def _uses_infiniband(context: Context, instance: InstancePlan) -> bool:
    present = all(name in context.facts and context.facts[name].infiniband for name in instance.hosts)
    return present and not any(environment(context, name).get("NCCL_IB_DISABLE") == "1" for name in instance.hosts)


def _least(amounts: list[int], word: str) -> Iterator[Finding]:
    if amounts:
        least = min(amounts)
        yield passed(f"{format_size(least)} or more {word}" if len(amounts) > 1 else f"{format_size(least)} {word}")


def _no_infiniband(context: Context) -> str:
    if why := no_plan(context):
        return why
    if not spanning(context):
        return "no instance spans several hosts"
    return "" if any(facts.infiniband for facts in context.facts.values()) else "no host has InfiniBand"


MEMORY = (
    Check("memory", "memory", memory, "1 GiB for each rank and what it keeps there, and 5 % for Ray", no_facts),
    Check(
        "shared-memory", "memory", shared_memory, "96 MiB for Ray, 160 MiB and 8 MiB for each rank for vLLM", no_plan
    ),
    Check("open-files", "memory", open_files, "a hard limit of 8192", no_facts),
    Check("locked-memory", "memory", locked_memory, "1 GiB, better no limit", _no_infiniband, looks_at=_on_infiniband),
    Check("disk", "memory", disk, "1 GiB", no_facts),
    Check("tmp", "memory", tmp, "1 GiB, better 5", no_facts),
)
