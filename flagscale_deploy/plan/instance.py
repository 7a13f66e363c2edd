"""Plan one replica of a model as the group of processes that serve it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.environment import host_environment, visible
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import InstancePlan, Network, Placement, RayPlan, join_port
from flagscale_deploy.plan.network import EVERY_ADDRESS, LOOPBACK, public_address
from flagscale_deploy.plan.pools import side_channel, transfer_flags
from flagscale_deploy.plan.ports import Ports
from flagscale_deploy.plan.rank import API_PORT, SUPERVISOR_PORT, Rank, flag_of
from flagscale_deploy.plan.rank_flags import Shape, shapes
from flagscale_deploy.plan.spares import moves_ranks, rank_words
from flagscale_deploy.plan.tls import CERTIFICATE, tls_flags
from flagscale_deploy.plan.vllm import serve_argv

FIRST_SUPERVISOR_PORT = 29601
"""Where the supervisors of a group's other ranks find that of its driver."""


@dataclass(frozen=True)
class _Replica:
    """What the ranks of a replica have in common."""

    inputs: Inputs
    model: ModelSpec
    placement: Placement
    ray: RayPlan
    ports: Ports


def plan_instance(
    inputs: Inputs, model: ModelSpec, placement: Placement, port: int, ray: RayPlan, ports: Ports
) -> InstancePlan:
    """Return the group that serves a placed replica: command lines, environments and addresses of its ranks.

    `port` is its driver's; ports of its own kind on other hosts, and those by which ranks find each other, are taken
    from `ports`.
    """
    driver = inputs.inventory[placement.driver]
    replica = _Replica(inputs, model, placement, ray, ports)
    forms = tuple(shapes(model, placement, inputs.networks[driver.name].node_ip, port, ports))
    ranks = tuple(_rank(replica, host, shape) for host, shape in zip(_hosts(placement), forms, strict=True))
    address = public_address(driver, inputs.networks[driver.name], flag_of(ranks[0].argv, "host"))
    return InstancePlan(
        model=model.name,
        replica=placement.replica,
        engine=model.engine,
        gpus=placement.gpus,
        executor=placement.executor,
        ranks=ranks,
        endpoint=f"{_scheme(ranks[0].argv)}://{join_port(address, port)}/v1",
        served_name=_served_name(model),
        pool=model.pool,
        spares=_spares(replica, forms),
        rank_words=rank_words(forms) if moves_ranks(inputs.spec, placement) else {},
    )


def _hosts(placement: Placement) -> tuple[str, ...]:
    """Return the hosts on which ranks are started: Ray starts what runs elsewhere itself."""
    return placement.hosts if placement.pinned else (placement.driver,)


def _spares(replica: _Replica, forms: Sequence[Shape]) -> tuple[Rank, ...]:
    """Return what stands by for the followers of a group, numbered as its further members."""
    placement = replica.placement
    elsewhere = replace(replica, placement=replace(placement, gpus=placement.spares))
    spares = (_rank(elsewhere, host, forms[1]) for host in placement.spares)
    return tuple(
        replace(
            spare,
            name=f"{placement.name} spare {at}",
            number=len(forms) - 1 + at,
            role="spare",
            script=f"vllm_serve_{file_name(replica.model.label)}_{placement.replica}_spare{at}.sh",
            data_rank=None,
        )
        for at, spare in enumerate(spares, 1)
    )


def _rank(replica: _Replica, name: str, shape: Shape) -> Rank:
    spec, host, network = replica.inputs.spec, replica.inputs.inventory[name], replica.inputs.networks[name]
    model, placement = replica.model, replica.placement
    own = _own_flags(spec, host, network)
    port = shape.ports.get(API_PORT)
    extra = {**own, **transfer_flags(model), **shape.flags}
    if port is not None:
        extra |= tls_flags(spec, model, name, replica.inputs.facts.get(name), own)
    env = _step_limit(spec) | host_environment(spec, host, network)
    env |= {name: value for name, value in model.env.items() if name != "CUDA_VISIBLE_DEVICES"}
    env |= {"RAY_ADDRESS": replica.ray.address} if placement.executor == "ray" else {}
    env |= visible(placement.gpus[name]) if placement.pinned else {}
    variables, taken = side_channel(model, placement, shape, name, env, replica.ports)
    if spec.restart.supervised and len(_hosts(placement)) > 1 and shape.number == 0:
        use = f"the supervisors of {placement.name}"
        taken = {**taken, SUPERVISOR_PORT: replica.ports.next_free(name, FIRST_SUPERVISOR_PORT, use)}
    argv = serve_argv(model, port=port, extra=extra)
    if port is not None and (listens := _behind_gate(replica, name, network, argv)) is not None:
        argv = serve_argv(model, port=port, extra={**extra, "host": listens})
    local, worker = _urls(argv, network, port)
    part = f"_rank{shape.number}" if shape.number else ""
    return Rank(
        name=placement.name + (f" rank {shape.number}" if shape.number else ""),
        number=shape.number,
        role=model.pool if model.pool and shape.role == "driver" else shape.role,
        host=name,
        gpus=placement.gpus[name],
        argv=argv,
        env=variables | env,
        script=f"vllm_serve_{file_name(model.label)}_{placement.replica}{part}.sh",
        ports={**shape.ports, **taken},
        local_url=local,
        worker_url=worker,
        data_rank=shape.data_rank,
    )


def _step_limit(spec: ServeSpec) -> dict[str, str]:
    """Return vLLM's own limit of a step (default 300 s), set to twice `hang`, which looks first and keeps evidence.

    Twice, since a longer step that was seen to end raises the time of a hang to 1.5 times that.
    """
    if not (spec.restart.supervised and spec.restart.hang):
        return {}
    return {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(math.ceil(2 * spec.restart.hang))}


def _behind_gate(replica: _Replica, name: str, network: Network, argv: Sequence[str]) -> str | None:
    """Return where an engine behind a gate listens; None for one whose own flags tell, or without a gate.

    That is on loopback where the gate is on the same host, else on the data network. An engine with TLS has a
    certificate for that address; one of a pool tells it to the engines of the other pool.
    """
    if replica.inputs.spec.gate is None or flag_of(argv, "host") is not None:
        return None
    beside = name == replica.inputs.inventory.head.name
    alone = beside and not replica.model.pool and flag_of(argv, CERTIFICATE) is None
    return LOOPBACK if alone else network.node_ip


def _urls(argv: tuple[str, ...], network: Network, port: int | None) -> Iterator[str]:
    """Yield the addresses of a server on its host and on the data network; "" for one without a port."""
    bound = flag_of(argv, "host")
    for otherwise in (LOOPBACK, network.node_ip):
        yield "" if port is None else f"{_scheme(argv)}://{join_port(bound_address(bound, otherwise), port)}"


def _scheme(argv: tuple[str, ...]) -> str:
    return "https" if flag_of(argv, "ssl-certfile") else "http"


def _own_flags(spec: ServeSpec, host: Host, network: Network) -> dict[str, object]:
    """Return the flags in `node_args` for ranks on a host, by any of its names."""
    flags: dict[str, object] = {}
    for name in (network.node_ip, host.address, host.name):
        flags |= spec.host_engine_args.get(name, {})
    return flags


def file_name(name: str) -> str:
    """Return a model's name as part of a file name; different models never get the same."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _served_name(model: ModelSpec) -> str:
    """Return the name that clients use; vLLM takes the first of several, by default the model's path."""
    name = model.engine_args.get("served-model-name")
    if isinstance(name, list | tuple):
        name = name[0] if name else None
    return str(name or model.model)


def bound_address(bound: Any, otherwise: str) -> str:
    """Return the address a server listens on, or `otherwise` if it listens on none in particular or all."""
    return str(bound) if bound and bound not in EVERY_ADDRESS else otherwise
