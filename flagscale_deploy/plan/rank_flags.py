"""Compute the flags by which the ranks of an instance find each other.

Source: `vllm serve --help` and runs over two hosts (vLLM 0.32, CPU).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.plan.model import Placement
from flagscale_deploy.plan.ports import Ports
from flagscale_deploy.plan.rank import API_PORT, MASTER_PORT, RPC_PORT, RankRole

FIRST_MASTER_PORT, FIRST_RPC_PORT = 29501, 29550
"""vLLM's own defaults for --master-port and --data-parallel-rpc-port."""
_FOLLOWER: Mapping[str, object] = {"headless": True, "api-server-count": None}
"""A follower has no API server, and vLLM refuses a number of them there."""


@dataclass(frozen=True)
class Shape:
    """What makes a rank of an instance another one than its siblings."""

    number: int
    role: RankRole
    flags: Mapping[str, object] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    data_rank: int | None = None


def shapes(model: ModelSpec, placement: Placement, head_ip: str, port: int, ports: Ports) -> Iterator[Shape]:
    """Yield the shape of each rank that is started, in rank order; `port` is the driver's."""
    api = {API_PORT: port}
    match placement.spread:
        case "mp":
            yield from _multiprocessing(model, placement, head_ip, api, ports)
        case "data-parallel" | "data-parallel-hybrid":
            yield from _data_parallel(model, placement, head_ip, api, ports)
        case "data-parallel-ray":
            yield Shape(0, "driver", {"data-parallel-size-local": _local(model, placement, placement.driver)}, api)
        case "ray":
            yield Shape(0, "driver", {"distributed-executor-backend": "ray"}, api)
        case "one-host":
            yield Shape(0, "driver", {}, api)


def _multiprocessing(
    model: ModelSpec, placement: Placement, head_ip: str, api: Mapping[str, int], ports: Ports
) -> Iterator[Shape]:
    """Yield a rank for each host, with equal shares of the tensor and pipeline parallel ranks.

    The backend is the default with `--nnodes` on CUDA only, so it is named.
    """
    master = _taken(model, placement, ports, "master-port", FIRST_MASTER_PORT)
    shared = {
        "distributed-executor-backend": "mp",
        "nnodes": len(placement.hosts),
        "master-addr": head_ip,
        "master-port": master,
    }
    for number in range(len(placement.hosts)):
        flags = {**shared, "node-rank": number}
        if number:
            yield Shape(number, "follower", {**flags, **_FOLLOWER})
        else:
            yield Shape(0, "driver", flags, {**api, MASTER_PORT: master})


def _data_parallel(
    model: ModelSpec, placement: Placement, head_ip: str, api: Mapping[str, int], ports: Ports
) -> Iterator[Shape]:
    """Yield a rank for each host, which runs the data-parallel ranks that its GPUs carry."""
    rpc = _taken(model, placement, ports, "data-parallel-rpc-port", FIRST_RPC_PORT)
    hybrid = placement.spread == "data-parallel-hybrid"
    shared = {"data-parallel-address": head_ip, "data-parallel-rpc-port": rpc}
    first = 0
    for number, host in enumerate(placement.hosts):
        local = _local(model, placement, host)
        flags = {**shared, "data-parallel-size-local": local}
        flags |= {"data-parallel-start-rank": first} if number else {}
        asked = None if hybrid else first
        if not number:
            yield Shape(0, "driver", flags, {**api, RPC_PORT: rpc}, asked)
        elif hybrid:
            own = ports.next_free(host, api[API_PORT], f"{placement.name} rank {number}")
            yield Shape(number, "dp", flags, {API_PORT: own})
        else:
            yield Shape(number, "follower", {**flags, **_FOLLOWER}, {}, asked)
        first += local


def _local(model: ModelSpec, placement: Placement, host: str) -> int:
    """Return how many data-parallel ranks run on a host."""
    return len(placement.gpus[host]) * model.parallel("data") // model.gpus_needed


def _taken(model: ModelSpec, placement: Placement, ports: Ports, flag: str, first: int) -> int:
    """Take the port on the driver's host by which ranks find each other: the user's, or the next free one."""
    asked = model.engine_args.get(flag)
    use = f"{placement.name} {flag}"
    if asked is None:
        return ports.next_free(placement.driver, first, use)
    return ports.fixed(placement.driver, int(str(asked)), use, model.place(flag))
