"""Models as the planner knows them: what an entry of any dialect says, and what `deploy` and the command line add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flagscale_deploy.config.dialects.model import Entry, read_flags, take_model, take_port, take_secrets
from flagscale_deploy.config.experiment import CliArgs
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import Deploy, ModelOptions
from flagscale_deploy.config.source import parse_yaml
from flagscale_deploy.config.spec import DEFAULT_ENGINE_PORT, ModelSpec
from flagscale_deploy.errors import InputError

CLI_ARGS: Path = ("experiment", "runner", "cli_args")
_MODEL = ("model", "model-tag")
_OURS = {"hosts", "num_replicas", "replicas"}


def apply_cli_args(entries: Sequence[Entry], cli: CliArgs, findings: Findings) -> list[Entry]:
    """The entries with `cli_args.engine_args` over their own flags, and `cli_args.model_path` as the model.

    FlagScale's `flagscale serve` puts the options of its own command line there, `engine_args` as JSON text.
    """
    if cli.model_path and len(entries) > 1:
        findings.add((*CLI_ARGS, "model_path"), f"is one path for {len(entries)} models", "set it where each model is")
    path = (*CLI_ARGS, "engine_args")
    given = read_flags(_mapping(cli.engine_args, path, findings), path, findings)
    changed = []
    for entry in entries:
        flags = dict(given)
        model = take_model(flags, _MODEL, path, findings) if flags.keys() & {*_MODEL} else ""
        port = take_port(flags, path, findings)
        secret_env = take_secrets(flags, path, findings)
        changed.append(
            replace(
                entry,
                model=cli.model_path or model or entry.model,
                engine_args={**entry.engine_args, **flags},
                port=entry.port if port is None else port,
                secret_env={**entry.secret_env, **secret_env},
            )
        )
    return changed


def build_models(
    entries: Sequence[Entry], deploy: Deploy, set_in: Mapping[str, Path], cli: CliArgs, findings: Findings
) -> tuple[ModelSpec, ...]:
    """The models; options for one that the file does not have are a fault."""
    options = {name: each or ModelOptions() for name, each in (deploy.models or {}).items()}
    names = [entry.name for entry in entries]
    for unknown in options.keys() - set(names) if entries else ():
        home = "serve" if entries[0].path[-1].isdecimal() else entries[0].path[-2]
        findings.add((*set_in["models"], unknown), "unknown model", f"{home} has: {', '.join(names)}")
    return tuple(
        _build(entry, options.get(entry.name, ModelOptions()), deploy, set_in, cli, findings) for entry in entries
    )


def remote_options(deploy: Deploy) -> dict[str, dict[str, Any]]:
    """The options of `ray.remote` by the name of the task or actor, as `deploy.models` has them."""
    given = {name: each for name, each in (deploy.models or {}).items() if each is not None}
    return {name: each.model_dump(exclude_none=True, exclude=_OURS) for name, each in given.items()}


def _build(
    entry: Entry, options: ModelOptions, deploy: Deploy, set_in: Mapping[str, Path], cli: CliArgs, findings: Findings
) -> ModelSpec:
    """`deploy.models` over the entry's own `resources`; the command line's port, then `deploy.port`, over its own."""
    own, paths = entry.options, _paths(entry, options, set_in)
    given = {key: _first(value, getattr(own, key)) for key, value in options}
    asked = {"hosts": "hosts", "resources": "resources" if given["resources"] else "accelerator_type"}
    shared = deploy.service.port if deploy.service else None
    ports = [port for port in (cli.port, deploy.port, shared, entry.port) if port is not None]
    return ModelSpec(
        name=entry.name,
        model=entry.model,
        engine_args=entry.engine_args,
        action_args=entry.action_args,
        port=_first(*(port for port in ports if port != "auto"), DEFAULT_ENGINE_PORT),
        num_gpus=_whole(given["num_gpus"], paths["num_gpus"], findings),
        num_cpus=given["num_cpus"],
        replicas=_first(options.num_replicas, options.replicas, own.num_replicas, own.replicas, 1),
        where=findings.places.where(entry.path),
        port_auto=ports[:1] == ["auto"],
        hosts=given["hosts"],
        host_types=_host_types(given["resources"], given["accelerator_type"], paths, findings),
        places={name: findings.places.where(paths[key]) for name, key in asked.items() if given[key]},
    )


def _paths(entry: Entry, options: ModelOptions, set_in: Mapping[str, Path]) -> dict[str, Path]:
    """Where each option of a model was set: in `deploy.models`, which wins, else in its own `resources`."""
    named = {key for key, value in options if value is not None}
    own = entry.path if entry.options == ModelOptions() else (*entry.path, "resources")
    return {
        key: (*set_in["models"], entry.name, key) if key in named else (*own, key) for key in ModelOptions.model_fields
    }


def _host_types(resources: Any, accelerator: Any, paths: Mapping[str, Path], findings: Findings) -> tuple[str, ...]:
    """The custom resources that a model asks for, as the `type` of the hosts that it may have.

    Ray would place a task by their amounts; here GPUs are counted, and the type says only which hosts'.
    """
    if resources is not None and not isinstance(resources, dict):
        findings.add(paths["resources"], "is no mapping", "as in resources: {A100: 1}, with type: A100 of a host")
        resources = None
    if accelerator is not None and not isinstance(accelerator, str):
        findings.add(paths["accelerator_type"], "is no name", "as in accelerator_type: A100, with type: A100 of a host")
        accelerator = None
    asked = [name for name, amount in (resources or {}).items() if amount]
    return tuple(dict.fromkeys([*asked, *([accelerator] if accelerator else [])]))


def _whole(gpus: float | None, path: Path, findings: Findings) -> int | None:
    """A number of GPUs: an engine has whole ones, where a Ray task may have a part of one."""
    if gpus is not None and gpus != int(gpus):
        findings.add(path, f"{gpus}: expected a whole number of GPUs", "an engine cannot have a part of one")
    return None if gpus is None else int(gpus)


def _mapping(value: Any, path: Path, findings: Findings) -> dict[str, Any]:
    """A mapping, also one in JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = parse_yaml(value, "engine_args")
        except InputError as error:
            findings.add(path, f"is no JSON: {error.faults[0].problem}", 'as in {"max_model_len": 4096}')
            return {}
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        findings.add(path, "is no mapping of flags", 'as in {"max_model_len": 4096}')
        return {}
    return value


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
