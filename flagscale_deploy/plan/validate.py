"""Find what is wrong with a specification on any hosts, before a host is contacted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from flagscale_deploy.config.plain import plain
from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import MOST_FAULTS, Fault, InputError, at_most
from flagscale_deploy.plan.gate import gate_faults
from flagscale_deploy.plan.pools import CONNECTOR, pool_faults
from flagscale_deploy.plan.spread import LOCAL
from flagscale_deploy.plan.tls import half_pairs
from flagscale_deploy.plan.vllm import is_on, is_optimization_level, serve_argv
from flagscale_deploy.plan.vllm_flags import KNOWN
from flagscale_deploy.secrets import by_look, is_secret_name
from flagscale_deploy.support.suggest import nearest
from flagscale_deploy.support.value import Value

_PROBLEM = "makes a server one of several that share the ranks of a model; this tool starts whole servers"
_REMEDY = "take it out: the hosts of a server are chosen by its parallel sizes and free GPUs"
_OF_ONE_OF_SEVERAL = {"nnodes": "1", "node-rank": "0", "master-addr": "", "data-parallel-rank": "",
               "data-parallel-start-rank": "0"}  # fmt: skip
"""Flags of a server that is started by hand on each of several hosts, with the value that changes nothing."""


def refuse_wrong(spec: ServeSpec) -> None:
    """Raise InputError with everything in a specification that is wrong on any hosts."""
    faults = [fault for model in spec.engines if (fault := _size_fault(model)) is not None]
    faults += [fault for model in spec.engines for fault in _flag_faults(model)]
    faults += [
        Fault(model.place("distributed-executor-backend"), "is ray, but deploy.ray is off", "set deploy.ray: auto")
        for model in spec.engines
        if spec.ray.mode == "off" and model.engine_args.get("distributed-executor-backend") == "ray"
    ]
    faults += _faults_of_several(spec)
    faults += _host_flag_faults(spec)
    faults += _program_faults(spec)
    faults += half_pairs(spec)
    faults += pool_faults(spec)
    faults += gate_faults(spec)
    if faults:
        raise InputError(at_most(faults, spec.source))


def _faults_of_several(spec: ServeSpec) -> list[Fault]:
    """Return flags that make a server a part of one that is started by hand on several hosts.

    Such a server waits for the others, which nobody starts, or answers no client.
    """
    faults = []
    for place, flags, ranks in _flag_sets(spec):
        if is_on(flags.get("headless")):
            faults.append(Fault(place("headless"), "a headless server answers no client", _REMEDY))
        single = _OF_ONE_OF_SEVERAL
        if ranks == 0 or not _divides(flags.get(LOCAL), ranks):
            single = single | {LOCAL: str(ranks)}
        faults += [
            Fault(place(flag), f"{flag} {_PROBLEM}", _REMEDY)
            for flag, harmless in single.items()
            if flags.get(flag) is not None and str(flags[flag]) != harmless
        ]
    return faults


def _divides(local: object, ranks: int) -> bool:
    """Return whether hosts with so many data-parallel ranks each make up all of them."""
    return str(local).isdecimal() and int(str(local)) > 0 and ranks % int(str(local)) == 0


def _flag_sets(spec: ServeSpec) -> Iterator[tuple[Callable[[str], str], Mapping[str, Value], int]]:
    """Yield what says where a flag was set, flags, and data-parallel ranks: of each model, then of single hosts (0)."""
    for model in spec.engines:
        actions = (action.partition("=") for action in model.action_args)
        flags = {**model.engine_args, **{name: value if equals else True for name, equals, value in actions}}
        yield model.place, flags, model.parallel("data")
    for host, own in spec.host_engine_args.items():
        yield partial(spec.where, "experiment", "node_args", host, "engine_args"), own, 0


def unknown_flags(spec: ServeSpec) -> list[Fault]:
    """Return a warning for each flag that vLLM 0.32 does not know: the vLLM of a host may."""
    unknown = [
        (place, flag)
        for place, flags, _ in _flag_sets(spec)
        for flag in flags
        if (name := flag.partition(".")[0]) not in KNOWN and name != CONNECTOR and not is_optimization_level(flag)
    ]
    warnings: list[Fault] = []
    for place, flag in unknown[:MOST_FAULTS]:
        name = flag.partition(".")[0]
        near = nearest(name, KNOWN)
        remedy = f"did you mean {near}?" if near else "check asks the vLLM on the hosts"
        warnings.append(Fault(place(flag), f"vLLM 0.32 has no flag --{name}", remedy))
    return at_most(warnings, spec.source, len(unknown[MOST_FAULTS:]))


def shown_secrets(spec: ServeSpec) -> list[Fault]:
    """Return a warning for each flag that holds a secret: all users of a host see its command lines."""
    remedy = "let vLLM take it from a variable, named in deploy.secrets, or from a file"
    warnings = (
        Fault(place(flag), "holds a secret, which every user of a host sees in its list of processes", remedy)
        for place, flags, _ in _flag_sets(spec)
        for flag, value in flags.items()
        if _holds_secret(flag, value) or spec.holds_secret(json.dumps(plain(value), ensure_ascii=False))
    )
    return at_most(warnings, spec.source)


def _holds_secret(name: str, value: Value) -> bool:
    """Return whether a flag's value, JSON text too, has a part that is secret by its name or its look."""
    if isinstance(value, dict):
        return any(_holds_secret(key, part) for key, part in value.items())
    if isinstance(value, list):
        return any(_holds_secret(name, part) for part in value)
    if not isinstance(value, str):
        return False
    with suppress(ValueError, RecursionError):
        if value[:1] in "{[" and value:
            return _holds_secret(name, json.loads(value))
    return by_look(value) != value or (is_secret_name(name) and bool(value))


def _program_faults(spec: ServeSpec) -> list[Fault]:
    """Return what conflicts with a program of the user's own, which is a Ray driver."""
    if not spec.runs_program:
        return []
    where = spec.where("experiment", "task", "entrypoint")
    faults = []
    if spec.ray.mode == "off":
        faults.append(Fault(where, f"{spec.entrypoint} runs on Ray, but deploy.ray is off", "set deploy.ray: auto"))
    if spec.router.enabled:
        faults.append(
            Fault(where, f"{spec.entrypoint} is a program of your own, which has no router", "set deploy.router: none")
        )
    return faults


def _host_flag_faults(spec: ServeSpec) -> list[Fault]:
    """Return flags of single hosts that would change the number of ranks, or which server it is."""
    fixed = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size",
             "distributed-executor-backend", "model", "port")  # fmt: skip
    return [
        Fault(spec.where("experiment", "node_args", host, "engine_args", key), "cannot differ between hosts",
              "set it for the model")
        for host, flags in spec.host_engine_args.items()
        for key in flags
        if key in fixed
    ]  # fmt: skip


def _flag_faults(model: ModelSpec) -> tuple[Fault, ...]:
    """Return flag values that vLLM's command line cannot express."""
    try:
        serve_argv(model, port=model.port, extra={})
    except InputError as error:
        return error.faults
    return ()


def _size_fault(model: ModelSpec) -> Fault | None:
    if model.num_gpus in (None, 0, model.world_size):
        return None
    sizes = " × ".join(str(model.parallel(kind)) for kind in ("tensor", "pipeline", "data"))
    return Fault(
        model.where,
        f"num_gpus is {model.num_gpus}, but tensor × pipeline × data parallel size is {sizes} = {model.world_size}",
        "make the two equal, or remove num_gpus",
    )
