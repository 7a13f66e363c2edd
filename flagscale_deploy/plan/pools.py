"""Plan how the pools of a model, prefill and decode, hand the KV cache over.

Source: runs of vLLM 0.32 with NIXL 1.5 over two hosts, and vLLM's NixlConnector: its side channel listens at
VLLM_NIXL_SIDE_CHANNEL_PORT plus the number of the data-parallel rank, by default on localhost only; a rank that Ray
starts listens on the address of its Ray node (`DPEngineCoreActor` of vLLM 0.32).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.plan.model import Placement
from flagscale_deploy.plan.ports import HIGHEST, Ports
from flagscale_deploy.plan.rank import SIDE_CHANNEL
from flagscale_deploy.plan.rank_flags import Shape

CONFIG, CONNECTOR = "kv-transfer-config", "kv-connector"
SIDE_HOST, SIDE_PORT = "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"
FIRST_SIDE_PORT = 5600
"""vLLM's own default for VLLM_NIXL_SIDE_CHANNEL_PORT."""
NIXL = "nixl"
_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
_ROUTED = (NIXL, "mooncake", "moriio")
"""The values of vllm-router's --kv-connector (0.1.17), with which vLLM's names of connectors begin."""


def transfer_config(model: ModelSpec) -> dict[str, Any]:
    """Return the `--kv-transfer-config` of a pool.

    The user's settings win: its keys, in JSON or dotted, or `kv-connector`.
    """
    ours = {"kv_connector": model.engine_args.get(CONNECTOR) or "NixlConnector", "kv_role": _ROLES[model.pool],
            "kv_load_failure_policy": "fail"}  # fmt: skip
    if model.gpus_needed == 0:
        ours["kv_buffer_device"] = "cpu"
    config = {**ours, **_own(model)}
    for key in _dotted(model):
        *path, last = key.split(".")[1:]
        inner = config
        for name in path:
            inner[name] = dict(inner.get(name) or {})
            inner = inner[name]
        inner[last] = model.engine_args[key]
    return config


def transfer_flags(model: ModelSpec) -> dict[str, object]:
    """Return the flags by which an engine of a pool transfers the KV cache; none where the user's say it all."""
    if not model.pool:
        return {}
    config = transfer_config(model)
    replaced: dict[str, object] = dict.fromkeys((*_dotted(model), CONNECTOR))
    return replaced if config == _own(model) else {**replaced, CONFIG: config}


def connector(model: ModelSpec) -> str:
    """Return the connector of a pool as vllm-router calls it; "" for one that it does not know."""
    name = str(transfer_config(model)["kv_connector"]).lower()
    return next((word for word in _ROUTED if name.startswith(word)), "")


def side_channel(
    model: ModelSpec, placement: Placement, shape: Shape, host: str, env: Mapping[str, str], ports: Ports
) -> tuple[dict[str, str], dict[str, int]]:
    """Return the variables and ports of a rank's NIXL side channel; those of the user in `env` win.

    A host has a port for each of its data-parallel ranks; a follower by multiprocessing has no engine core, and none.
    Where Ray starts the ranks, it chooses which run on a host, and vLLM copies the driver's port there: the ports of
    all ranks are taken on all of their hosts.
    """
    if not model.pool or connector(model) != NIXL:
        return {}, {}
    variables = {SIDE_HOST: env["VLLM_HOST_IP"]}
    if shape.role == "follower" and placement.spread == "mp":
        return variables, {}
    first = int(str(shape.flags.get("data-parallel-start-rank", 0)))
    count = int(str(shape.flags.get("data-parallel-size-local") or model.parallel("data")))
    by_ray = placement.spread == "data-parallel-ray"
    span, elsewhere = (model.parallel("data"), placement.hosts[1:]) if by_ray else (count, ())
    use, asked = f"the NIXL side channel of {placement.name}", env.get(SIDE_PORT, "")
    if asked.isdecimal() and int(asked) + first + span <= HIGHEST:
        start = int(asked) + first
        for name, port in ((name, start + at) for name in (host, *elsewhere) for at in range(span)):
            ports.fixed(name, port, use, f"{SIDE_PORT}={asked}")
    else:
        start = ports.next_free(host, FIRST_SIDE_PORT + first, use, span=span, also=elsewhere)
        variables[SIDE_PORT] = str(start - first)
    return variables, {f"{SIDE_CHANNEL} {at}" if at else SIDE_CHANNEL: start + at for at in range(count)}


def pool_faults(spec: ServeSpec) -> Iterator[Fault]:
    """Yield pools that cannot work together on any hosts."""
    for model in spec.models:
        pools = list(model.pools.values())
        if pools and spec.router.enabled is False:
            problem = f"is none, but the pools of {model.name} need a router, which sends each request to both"
            yield Fault(spec.where("deploy", "router"), problem, "remove deploy.router")
        yield from _unequal(model, pools)
        for pool in pools:
            if not connector(pool):
                flag = CONNECTOR if CONNECTOR in pool.engine_args else CONFIG
                problem = f"vllm-router knows no way to use {transfer_config(pool)['kv_connector']}"
                yield Fault(pool.place(flag), problem, "use NixlConnector, or a connector of Mooncake or MoRIIO")


def _unequal(model: ModelSpec, pools: Sequence[ModelSpec]) -> Iterator[Fault]:
    """Yield settings of the KV cache that differ between pools: blocks of one do not fit into the other."""
    for flag in ("block-size", "kv-cache-dtype"):
        values = {str(pool.engine_args.get(flag, "vLLM's default")): pool for pool in pools}
        if len(values) > 1:
            differing = " and ".join(f"{value} in {pool.pool}" for value, pool in values.items())
            yield Fault(next(iter(values.values())).place(flag), f"{flag} of {model.name} is {differing}",
                        "set the same for both pools")  # fmt: skip


def _own(model: ModelSpec) -> dict[str, Any]:
    """Return what the user wrote as `kv-transfer-config`, a mapping or JSON."""
    own: object = model.engine_args.get(CONFIG)
    if isinstance(own, str):
        try:
            own = json.loads(own)
        except (ValueError, RecursionError):
            return {}
    return dict(own) if isinstance(own, Mapping) else {}


def _dotted(model: ModelSpec) -> list[str]:
    return [key for key in model.engine_args if key.startswith(f"{CONFIG}.")]
