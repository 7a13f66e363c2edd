"""Build hosts, specifications and facts for tests of what is planned and done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.config.spec import ModelSpec, RaySpec, ServeSpec
from flagscale_deploy.errors import Fault, FaultsError
from flagscale_deploy.facts.model import Facts, Gpu, GpuProcess, Interface, ListeningPort
from flagscale_deploy.inventory.model import Group, Host, Inventory
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.rendering.render import Templates, load_templates

RUN = "20261101T120000Z-abc123"
TEMPLATES = load_templates()
OFFLINE: Mapping[str, Facts] = {}


def host(name: str, **settings: Any) -> Host:
    """`gpu01` has the address 10.0.0.1, and so on."""
    return Host(name, settings.pop("address", f"10.0.0.{int(name[-2:])}"), **settings)


def inventory(*hosts: Host | str, head: str | None = None) -> Inventory:
    made = tuple(entry if isinstance(entry, Host) else host(entry) for entry in hosts)
    groups = {"head": Group("head", (head,))} if head else {}
    return Inventory(made, groups, "hosts.yaml")


def model(name: str = "qwen", **settings: Any) -> ModelSpec:
    """Return a model of `tp` ranks; other settings are those of ModelSpec."""
    args = dict(settings.pop("engine_args", {}))
    if "tp" in settings:
        args["tensor-parallel-size"] = settings.pop("tp")
    return ModelSpec(
        name,
        settings.pop("model", f"/models/{name}"),
        engine_args=args,
        where=settings.pop("where", f"qwen.yaml: model_args.{name}"),
        **settings,
    )


def spec(*models: ModelSpec, **settings: Any) -> ServeSpec:
    ray = settings.pop("ray", "auto")
    return ServeSpec(
        settings.pop("name", "qwen"),
        models or (model(),),
        ray=ray if isinstance(ray, RaySpec) else RaySpec(mode=ray),
        source="qwen.yaml",
        **settings,
    )


def gpus(count: int, busy: Iterable[int] = (), host: int = 1) -> tuple[Gpu, ...]:
    """GPUs of 80 GiB of a host by its number; busy ones have a process of somebody else on them."""
    theirs = (GpuProcess(4711, 40000, "alice", "python train.py"),)
    return tuple(
        Gpu(at, f"GPU-{host}-{at}", "H100", 81920, 40000 if at in busy else 4, theirs if at in busy else ())
        for at in range(count)
    )


def facts(name: str, count: int = 8, **changes: Any) -> Facts:
    """Return what the probe finds on a healthy host."""
    number = int(name[-2:])
    sound = Facts(
        user="ubuntu",
        hostname=name,
        boot_id=f"boot-{name}",
        python="3.11.7",
        ray="2.60.0",
        vllm="0.32.0",
        router="0.1.17",
        nixl="1.5.2",
        aiohttp="3.14.1",
        gpus=gpus(count, changes.pop("busy", ()), number),
        interfaces=(
            Interface("lo", ("127.0.0.1", "::1")),
            Interface("eth0", (f"10.0.0.{number}", f"fd00::{number}")),
            Interface("ib0", (f"192.168.7.{number}",)),
        ),
        default_address=f"10.0.0.{number}",
        cpus=64,
        memory_total=512 << 30,
        memory_available=500 << 30,
        disk_free=100 << 30,
        tmp_free=100 << 30,
        shm_total=256 << 30,
        shm_free=256 << 30,
        hostname_addresses=(f"10.0.0.{number}",),
    )
    return replace(sound, **changes)


def taken(port: int, command: str = "nginx", pid: int | None = 99) -> ListeningPort:
    return ListeningPort(port, "0.0.0.0", pid, command)


def seen(*hosts: str, count: int = 8, **changes: Any) -> dict[str, Facts]:
    return {name: facts(name, count, **changes) for name in hosts}


def planned(
    hosts: Inventory,
    serve_spec: ServeSpec,
    host_facts: Mapping[str, Facts] | None = None,
    *,
    force: bool = False,
    run_id: str = RUN,
    templates: Templates = TEMPLATES,
) -> Plan:
    """Return the plan over these hosts, each of them with 8 free GPUs unless `host_facts` differ."""
    host_facts = seen(*hosts.names) if host_facts is None else host_facts
    return plan(Inputs(hosts, serve_spec, host_facts, run_id, templates, skip=["gpu-busy"] if force else []))


def faults_of(
    hosts: Inventory, serve_spec: ServeSpec, host_facts: Mapping[str, Facts] | None = None, **words: Any
) -> Sequence[Fault]:
    """Return the faults of a plan that can't be made."""
    with pytest.raises(FaultsError) as raised:
        planned(hosts, serve_spec, host_facts, **words)
    return raised.value.faults
