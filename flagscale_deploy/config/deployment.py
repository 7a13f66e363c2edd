"""`deploy` settings from wherever they stand, and the modes among them that this tool does not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from flagscale_deploy.config.compose import merge
from flagscale_deploy.config.dialects.forms import is_composition, read_body
from flagscale_deploy.config.experiment import Experiment
from flagscale_deploy.config.overrides import DEPLOY_PLACES
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.router_flags import FLAGS, OF_OTHER_MODES, SET_BY_US
from flagscale_deploy.config.schema.places import Checked, KeyFault, KeyFaults, Path
from flagscale_deploy.config.schema.settings import BackoffSettings, Deploy, RouterSettings
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.config.spec import Executor, ModelSpec, RaySpec, RouterSpec
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.value import Tree, Value


def read_deploy(tree: Tree) -> Checked[tuple[Deploy, dict[str, Path]]]:
    """Return all `deploy` settings as one, and for each of its keys the path of the mapping that it was last set in."""
    faults = KeyFaults()
    body, place = read_body(tree)
    if is_composition(body):
        return (Deploy(), {}), faults
    merged: Tree = {}
    set_in: dict[str, Path] = {}
    # The oldest files have the mode beside `deploy`, and not in it.
    mode = body.get("command_line_mode") if isinstance(body, dict) else None
    beside: Tree = {} if mode is None else {"command_line_mode": mode}
    for path, value in [(place, beside), *((path, _at(tree, path)) for path in DEPLOY_PLACES)]:
        if value is not None:
            settings = faults.take(read_settings(Deploy, value, path)).model_dump(exclude_none=True)
            merge(merged, settings)
            set_in.update({key: (*path, key) for key in settings})
    return (Deploy.model_validate(merged), set_in), faults


def read_ray(
    deploy: Deploy, set_in: Mapping[str, Path], inline_port: int | None, models: Sequence[ModelSpec]
) -> Checked[tuple[RaySpec, Executor]]:
    """Return `deploy.ray` and `deploy.executor`; `inline_port` is Ray's port of the file's own nodes.

    Where Ray is off, hosts are joined by multiprocessing. Where they are, or a model says that its ranks are joined
    without Ray, Ray runs only if it is needed or asked for.
    """
    faults = KeyFaults()
    keys = deploy.ray.model_dump(exclude_none=True) if deploy.ray else {}
    ray = RaySpec(**{"port": inline_port, **keys})
    executor = deploy.executor
    if ray.mode == "off" and executor == "ray":
        faults.add(set_in["executor"], "is ray, but deploy.ray is off", "set executor: mp, or ray: auto")
    if ray.mode == "off":
        return (ray, "mp"), faults
    without = executor in ("mp", "auto") or (executor is None and any(map(_does_without_ray, models)))
    if without and "mode" not in keys:
        ray = replace(ray, mode="auto")
    return (ray, executor or "ray"), faults


def _does_without_ray(model: ModelSpec) -> bool:
    """Return whether the flags of a model, or of a pool, join ranks on several hosts without Ray."""
    for pool in model.pools.values() or (model,):
        backend = pool.engine_args.get("distributed-executor-backend")
        by_data = backend is None and pool.engine_args.get("data-parallel-backend") != "ray"
        if backend == "mp" or (by_data and pool.parallel("data") > 1):
            return True
    return False


def read_router(deploy: Deploy, set_in: Mapping[str, Path]) -> Checked[RouterSpec]:
    """Return `deploy.router`; keys that it does not define are flags of vllm-router."""
    faults = KeyFaults()
    if deploy.router is None:
        return RouterSpec(), faults
    flags: Tree = {}
    for key, value in (deploy.router.model_extra or {}).items():
        flag = key.replace("_", "-")
        where = (*set_in["router"], key)
        if flag in SET_BY_US:
            faults.add(where, "is set by this tool", "take it out")
        elif flag in OF_OTHER_MODES:
            faults.add(where, "belongs to a mode that is not run here", "take it out")
        elif is_secret_name(key):
            faults.add(where, "would be seen in the list of processes", "set the model's api-key")
        elif flag not in FLAGS:
            names = (*RouterSettings.model_fields, *(name.replace("-", "_") for name in FLAGS))
            faults.add(where, "is not a flag of vllm-router", suggest(key, names))
        elif value is not None:
            flags[flag] = value
    settings = deploy.router.model_dump(include={"enabled", "policy", "host"}, exclude_none=True)
    port = None if deploy.router.port == "auto" else deploy.router.port
    return RouterSpec(**settings, port=port, metrics_port=deploy.router.prometheus_port, options=flags), faults


def read_restart(deploy: Deploy, set_in: Mapping[str, Path]) -> Checked[RestartSpec]:
    """Return `deploy.restart`."""
    faults = KeyFaults()
    restart = deploy.restart
    if restart is None:
        return RestartSpec(), faults
    backoff = restart.backoff or BackoffSettings()
    settings = restart.model_dump(exclude={"backoff", "max"}, exclude_none=True)
    waits = backoff.model_dump(exclude={"max"}, exclude_none=True)
    spec = RestartSpec(**settings, **waits)
    spec = spec if restart.max is None else replace(spec, maximum=restart.max)
    spec = spec if backoff.max is None else replace(spec, ceiling=backoff.max)
    if spec.spare and not spec.supervised:
        faults.add((*set_in["restart"], "spare"), "moves nothing without restarts", "set policy: on-failure")
    if spec.first > spec.ceiling:
        if backoff.max is not None:
            problem = f"{spec.first:g} s is more than the longest wait, {spec.ceiling:g} s"
            faults.add((*set_in["restart"], "backoff", "first"), problem, "set a larger max")
        spec = replace(spec, ceiling=spec.first)
    return spec, faults


def other_modes(experiment: Experiment, deploy: Deploy, set_in: Mapping[str, Path]) -> Iterator[KeyFault]:
    """Yield a fault for each mode that FlagScale has and this tool does not run, so that nothing is half deployed."""
    task = experiment.task
    where = ("experiment", "task")
    itself = "or run it with FlagScale itself"
    if task and task.type not in (None, "serve"):
        yield KeyFault((*where, "type"), f"{quoted(task.type)} is not run here", "this tool serves: type: serve")
    if task and (task.backend or "").strip().lower() not in ("", "vllm"):
        yield KeyFault((*where, "backend"), f"{quoted(task.backend)} is not run here", f"set backend: vllm, {itself}")
    if deploy.enable_composition:
        remedy = f"set it to false and name a model to serve with vLLM, {itself}"
        yield KeyFault(set_in["enable_composition"], "composition graphs are not run here", remedy)


def ignored_by_programs(experiment: Experiment, deploy: Deploy, set_in: Mapping[str, Path]) -> Iterator[KeyFault]:
    """Yield a fault for each setting of engines that a program of the user's own would not get."""
    nothing = "has no effect on a program of your own"
    for name, options in (deploy.models or {}).items():
        for pool in ("prefill", "decode"):
            if options is not None and getattr(options, pool) is not None:
                yield KeyFault((*set_in["models"], name, pool), nothing, "the program starts its engines: set it there")
        if options is not None and options.hosts is not None:
            remedy = "Ray places the tasks of a program: use resources: {TYPE: 1}, with type: TYPE of the hosts"
            yield KeyFault((*set_in["models"], name, "hosts"), nothing, remedy)
    for host, node in (experiment.node_args or {}).items():
        if node is not None and node.engine_args:
            path = ("experiment", "node_args", host, "engine_args")
            yield KeyFault(path, nothing, "the program starts its engines: set it there")
    if deploy.router is not None and deploy.router.model_dump(exclude_none=True).keys() - {"enabled"}:
        yield KeyFault(set_in["router"], nothing, "set deploy.router: none; no router is started before it")
    if deploy.gate is not None and deploy.gate.enabled is not False:
        yield KeyFault(set_in["gate"], nothing, "take it out; the program serves clients itself")
    if deploy.prefill_decode_disaggregation:
        remedy = "set it to false; the program starts its engines"
        yield KeyFault(set_in["prefill_decode_disaggregation"], nothing, remedy)
    if deploy.tls is not None:
        yield KeyFault(set_in["tls"], nothing, "take it out; the program starts its servers: set it there")


def _at(tree: Value, path: Path) -> Value:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
