"""Pools of engines that prefill or decode: `deploy.models.<name>.prefill`, `.decode`, and FlagScale's keys for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from flagscale_deploy.config.dialects.model import SECRET_FLAGS, read_flags
from flagscale_deploy.config.environment import read_variables
from flagscale_deploy.config.schema.places import Checked, KeyFault, KeyFaults, Path, Places
from flagscale_deploy.config.schema.settings import Deploy, ModelOptions, PoolSettings
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.config.spec import ModelSpec, PoolRole, PoolSpec
from flagscale_deploy.support.quote import quoted

POOL_ROLES: tuple[PoolRole, PoolRole] = ("prefill", "decode")
FLAGSCALES = "prefill_decode_disaggregation"
_SHARED = ("model", "model-tag", "port", "action-args", *SECRET_FLAGS)


def read_pools(
    own: ModelOptions, options: ModelOptions, paths: Mapping[str, Path], places: Places
) -> Checked[dict[PoolRole, PoolSpec]]:
    """Return both pools of a model, or none; `options` are `deploy.models`', which win over the model's own."""
    faults = KeyFaults()
    written = {role: _of_either(options, own, role) for role in POOL_ROLES}
    settings = {role: pool for role, pool in written.items() if isinstance(pool, PoolSettings)}
    pools = {role: faults.take(_read_pool(pool, paths[role], places)) for role, pool in settings.items()}
    if len(pools) == 1:
        (role,) = pools
        missing = POOL_ROLES[1 - POOL_ROLES.index(role)]
        faults.add(paths[role], f"{role} is set, but {missing} is not", f"add {missing}: {{num_replicas: 1}}")
    for key in ("num_replicas", "replicas"):
        if pools and _of_either(options, own, key) is not None:
            remedy = "set prefill.num_replicas and decode.num_replicas"
            faults.add(paths[key], "does not say of which pool", remedy)
    return pools, faults


def pools_of_flagscale(
    models: Sequence[ModelSpec], deploy: Deploy, set_in: Mapping[str, Path], places: Places
) -> Checked[tuple[ModelSpec, ...]]:
    """Return the models with the pools that FlagScale's `prefill_decode_disaggregation` asks for."""
    faults = KeyFaults()
    if not deploy.prefill_decode_disaggregation or not models:
        return tuple(models), faults
    path = set_in[FLAGSCALES]
    if len(models) > 1:
        names = ", ".join(quoted(model.name) for model in models)
        faults.add(path, f"does not say which of the models {names} it means", "set prefill and decode of each model")
        return tuple(models), faults
    (model,) = models
    if model.prefill or model.decode:
        faults.add(path, f"the model {quoted(model.name)} has prefill and decode, too", "keep one of the two")
    elif model.replicas != 1:
        problem = f"num_replicas of {quoted(model.name)} does not say of which pool"
        faults.add(path, problem, "take it out, and set prefill_num and decode_num")
    prefill = _pool(deploy.prefill_num, deploy.prefill_address, "prefill", set_in, places)
    decode = _pool(deploy.decode_num, deploy.decode_address, "decode", set_in, places)
    memory, key = deploy.decode_gpu_memory_utilization, "decode_gpu_memory_utilization"
    if memory is not None:
        flag = "gpu-memory-utilization"
        own = {**decode.places, flag: places.where(set_in[key])}
        decode = replace(decode, engine_args={flag: memory}, places=own)
    return (replace(model, prefill=prefill, decode=decode),), faults


def warn_of_connector(deploy: Deploy, set_in: Mapping[str, Path]) -> Iterator[KeyFault]:
    """Yield a warning where FlagScale's keys mean a connector that vLLM does not have any more."""
    if deploy.prefill_decode_disaggregation:
        problem = "the KV cache is transferred by NIXL: vLLM 0.32 has no P2pNcclConnector"
        yield KeyFault(set_in[FLAGSCALES], problem, "install nixl on the hosts of both pools")


def whole_gpus(gpus: float | None, path: Path) -> Checked[int | None]:
    """Return a number of GPUs: an engine has whole ones, where a Ray task may have a part of one."""
    faults = KeyFaults()
    if gpus is not None and gpus != int(gpus):
        faults.add(path, f"{gpus}: expected a whole number of GPUs", "an engine cannot have a part of one")
    return None if gpus is None else int(gpus), faults


def _of_either(options: ModelOptions, own: ModelOptions, key: str) -> object:
    value: object = getattr(options, key)
    return getattr(own, key) if value is None else value


def _read_pool(settings: PoolSettings, path: Path, places: Places) -> Checked[PoolSpec]:
    faults = KeyFaults()
    where = (*path, "engine_args")
    written = settings.engine_args or {}
    for key in written:
        if flag_name(key) in _SHARED:
            faults.add((*where, key), "cannot differ between prefill and decode", "set it where the model is")
    flags = faults.take(
        read_flags({key: value for key, value in written.items() if flag_name(key) not in _SHARED}, where)
    )
    set_at = {flag: places.where((*where, flag)) for flag in flags}
    if settings.hosts:
        set_at["hosts"] = places.where((*path, "hosts"))
    env, secrets = faults.take(read_variables(settings.env or {}, (*path, "env")))
    for name in secrets:
        remedy = "name it in deploy.secrets: secrets are the same for all servers"
        faults.add((*path, "env", name), "is a secret of one pool", remedy)
    pool = PoolSpec(
        replicas=settings.num_replicas or 1,
        num_gpus=faults.take(whole_gpus(settings.num_gpus, (*path, "num_gpus"))),
        hosts=settings.hosts,
        engine_args=flags,
        env=env,
        where=places.where(path),
        places=set_at,
    )
    return pool, faults


def _pool(
    number: int | None, address: str | None, role: PoolRole, set_in: Mapping[str, Path], places: Places
) -> PoolSpec:
    """Return a pool of FlagScale's; the address `auto` is any host."""
    hosts = None if address is None or address.lower() == "auto" else address
    set_at = {} if hosts is None else {"hosts": places.where(set_in[f"{role}_address"])}
    where = places.where(set_in.get(f"{role}_num") or set_in[FLAGSCALES])
    return PoolSpec(replicas=number or 1, hosts=hosts, where=where, places=set_at)
