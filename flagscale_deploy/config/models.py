"""Build models for the planner: an entry of any dialect, with the settings of `deploy` and of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from flagscale_deploy.config.dialects.model import Entry, read_flags, take_model, take_port, take_secrets
from flagscale_deploy.config.experiment import CliArgs
from flagscale_deploy.config.pools import pools_of_flagscale, read_pools, whole_gpus
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path, Places
from flagscale_deploy.config.schema.settings import Deploy, ModelOptions
from flagscale_deploy.config.source import parse_yaml
from flagscale_deploy.config.spec import DEFAULT_ENGINE_PORT, ModelSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.value import Tree, Value

T = TypeVar("T")
CLI_ARGS: Path = ("experiment", "runner", "cli_args")
_MODEL = ("model", "model-tag")
_OURS = {"hosts", "num_replicas", "replicas", "prefill", "decode"}


def apply_cli_args(entries: Sequence[Entry], cli: CliArgs) -> Checked[list[Entry]]:
    """Return the entries with `cli_args.engine_args` over their own flags, and `cli_args.model_path` as the model.

    FlagScale's `flagscale serve` puts the options of its own command line there, `engine_args` as JSON text.
    """
    faults = KeyFaults()
    if cli.model_path and len(entries) > 1:
        faults.add(
            (*CLI_ARGS, "model_path"), f"is one path, but there are {len(entries)} models", "set it where each model is"
        )
    path = (*CLI_ARGS, "engine_args")
    flags = faults.take(read_flags(faults.take(_mapping(cli.engine_args, path)), path))
    model = faults.take(take_model(flags, _MODEL, path)) if flags.keys() & {*_MODEL} else ""
    port = faults.take(take_port(flags, path))
    secret_env = faults.take(take_secrets(flags, path))
    return [
        replace(
            entry,
            model=cli.model_path or model or entry.model,
            engine_args={**entry.engine_args, **flags},
            port=entry.port if port is None else port,
            secret_env={**entry.secret_env, **secret_env},
        )
        for entry in entries
    ], faults


def build_models(
    entries: Sequence[Entry], deploy: Deploy, set_in: Mapping[str, Path], cli: CliArgs, places: Places
) -> Checked[tuple[ModelSpec, ...]]:
    """Return the models; options for one that the file does not have are a fault."""
    faults = KeyFaults()
    options = {name: model or ModelOptions() for name, model in (deploy.models or {}).items()}
    names = [entry.name for entry in entries]
    for unknown in options.keys() - set(names) if entries else ():
        faults.add((*set_in["models"], unknown), "unknown model", f"{_home(entries[0])} has: {', '.join(names)}")
    ports = (cli.port, deploy.port, deploy.service.port if deploy.service else None)
    models = []
    for entry in entries:
        own = options.get(entry.name, ModelOptions())
        model = faults.take(_build(entry, own, _paths(entry, own, set_in), places))
        models.append(_with_port(model, [port for port in (*ports, entry.port) if port is not None]))
    return faults.take(pools_of_flagscale(models, deploy, set_in, places)), faults


def remote_options(deploy: Deploy) -> dict[str, Tree]:
    """Return the options of `ray.remote` by the name of the task or actor, as `deploy.models` has them."""
    models = {name: options for name, options in (deploy.models or {}).items() if options is not None}
    return {name: options.model_dump(exclude_none=True, exclude=_OURS) for name, options in models.items()}


def _home(entry: Entry) -> str:
    """Return the key that holds the models; that of the oldest form is the one model itself."""
    *above, last = entry.path
    return "serve" if last.isdecimal() else above[-1] if above else last


def _build(entry: Entry, options: ModelOptions, paths: Mapping[str, Path], places: Places) -> Checked[ModelSpec]:
    """Return a model with the options of `deploy.models` over the entry's own `resources`."""
    faults = KeyFaults()
    own = entry.options
    resources = _first(options.resources, own.resources)
    accelerator = _first(options.accelerator_type, own.accelerator_type)
    hosts = _first(options.hosts, own.hosts)
    flags = (*entry.path, "engine_args") if entry.path[-1].isdecimal() else entry.path
    pools = faults.take(read_pools(own, options, paths, places))
    set_at = {flag: places.where((*flags, flag)) for flag in entry.engine_args}
    if hosts:
        set_at["hosts"] = places.where(paths["hosts"])
    if resources or accelerator:
        set_at["resources"] = places.where(paths["resources" if resources else "accelerator_type"])
    model = ModelSpec(
        name=entry.name,
        model=entry.model,
        engine_args=entry.engine_args,
        action_args=entry.action_args,
        num_gpus=faults.take(whole_gpus(_first(options.num_gpus, own.num_gpus), paths["num_gpus"])),
        num_cpus=_first(options.num_cpus, own.num_cpus),
        replicas=_first(options.num_replicas, options.replicas, own.num_replicas, own.replicas) or 1,
        where=places.where(entry.path),
        hosts=hosts,
        host_types=faults.take(_host_types(resources, accelerator, paths)),
        places=set_at,
        prefill=pools.get("prefill"),
        decode=pools.get("decode"),
    )
    return model, faults


def _with_port(model: ModelSpec, ports: Sequence[int | str]) -> ModelSpec:
    """Return a model with its port: the first number of the command line's, `deploy.port` and its own."""
    numbers = [port for port in ports if isinstance(port, int)]
    return replace(model, port=numbers[0] if numbers else DEFAULT_ENGINE_PORT, port_auto=[*ports[:1]] == ["auto"])


def _paths(entry: Entry, options: ModelOptions, set_in: Mapping[str, Path]) -> dict[str, Path]:
    """Return where each option of a model was set: in `deploy.models`, which wins, else in its own `resources`."""
    shared = {key for key, value in options if value is not None}
    own = entry.path if entry.options == ModelOptions() else (*entry.path, "resources")
    return {
        key: (*set_in["models"], entry.name, key) if key in shared else (*own, key) for key in ModelOptions.model_fields
    }


def _host_types(resources: object, accelerator: object, paths: Mapping[str, Path]) -> Checked[tuple[str, ...]]:
    """Return the custom resources of a model: hosts of that `type` may have it.

    Ray would place a task by their amounts; here GPUs are counted, and the type only says on which hosts.
    """
    faults = KeyFaults()
    types: list[str] = []
    if isinstance(resources, dict):
        types += [name for name, amount in resources.items() if amount]
    elif resources is not None:
        faults.add(paths["resources"], "is not a mapping", "as in resources: {A100: 1}, with type: A100 of a host")
    if isinstance(accelerator, str):
        types += [accelerator] if accelerator else []
    elif accelerator is not None:
        faults.add(
            paths["accelerator_type"], "is not a name", "as in accelerator_type: A100, with type: A100 of a host"
        )
    return tuple(dict.fromkeys(types)), faults


def _mapping(value: Value, path: Path) -> Checked[Tree]:
    """Return a mapping, also one in JSON text."""
    faults = KeyFaults()
    if isinstance(value, str) and value.strip():
        try:
            value = parse_yaml(value, "engine_args")
        except InputError as error:
            problem = f"is not JSON: {error.faults[0].problem}"
            faults.add(path, problem, 'as in {"max_model_len": 4096}')
            return {}, faults
    if isinstance(value, dict):
        return value, faults
    if value not in (None, ""):
        faults.add(path, "is not a mapping of flags", 'as in {"max_model_len": 4096}')
    return {}, faults


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
