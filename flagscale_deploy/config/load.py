"""A serve configuration, of whatever dialect, as one `ServeSpec`: read, compose, override, interpolate, translate."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flagscale_deploy.config.compose import compose
from flagscale_deploy.config.deployment import read_deploy, refuse_other_modes
from flagscale_deploy.config.dialects import read_entries
from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.environment import read_variables, take_secrets
from flagscale_deploy.config.interpolation import interpolate
from flagscale_deploy.config.overrides import apply_overrides, parse_overrides
from flagscale_deploy.config.places import Findings, nearest
from flagscale_deploy.config.places import Path as KeyPath
from flagscale_deploy.config.settings import Commands, Deploy, Experiment, ModelOptions, Runner
from flagscale_deploy.config.spec import DEFAULT_ENGINE_PORT, ModelSpec, RaySpec, ServeSpec, Timeouts
from flagscale_deploy.config.validate import read_settings
from flagscale_deploy.errors import Fault
from flagscale_deploy.secrets import Secret

_ROOT_KEYS = ("action", "deploy", "experiment", "hydra", "model_args", "serve")
_OLDER_ROOT_KEYS = ("hostfile", "llm")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def load_spec(
    path: Path | str,
    overrides: Sequence[str] = (),
    name: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> ServeSpec:
    """The specification that a file and the `key=value` words of the command line ask for.

    `name` is the deployment's (else deploy.name, experiment.exp_name, the file's stem); `environ` is what `${oc.env:…}`
    and `deploy.secrets` see (else the process's). InputError with every fault of the file, each with its place.
    """
    words = parse_overrides(overrides)
    choices = {word.key: str(word.value) for word in words if isinstance(word.value, str) and not word.sign}
    picked = dict(choices)
    tree, places = compose(Path(path), picked)
    findings = Findings(places)
    taken = choices.keys() - picked.keys()
    apply_overrides(tree, [word for word in words if word.key not in taken], findings)
    findings.raise_any()
    environment = os.environ if environ is None else environ
    resolved = interpolate(tree, environment, findings)
    findings.raise_any()
    spec = _translate(resolved, Path(path), name, environment, findings)
    findings.raise_any()
    return spec


def _translate(
    tree: dict[str, Any], path: Path, name: str | None, environ: Mapping[str, str], findings: Findings
) -> ServeSpec:
    for key in tree.keys() - {*_ROOT_KEYS, *_OLDER_ROOT_KEYS}:
        findings.add((key,), "unknown key", nearest(key, _ROOT_KEYS))
    experiment = read_settings(Experiment, tree.get("experiment"), ("experiment",), findings)
    entries = read_entries(tree, findings)
    composition = any("composition graph" in fault.problem for fault in findings.faults)
    deploy, set_in = (Deploy(), {}) if composition else read_deploy(tree, findings)
    refuse_other_modes(experiment, deploy, set_in, findings)
    models = _models(entries, deploy, set_in, findings)
    named = _name(name, deploy, set_in, experiment, path, findings)
    env, secret_env = _environment(entries, experiment, deploy, set_in, environ, findings)
    runner, cmds = experiment.runner or Runner(), experiment.cmds or Commands()
    return ServeSpec(
        name=named,
        models=models,
        exp_dir=experiment.exp_dir or f"outputs/{named}",
        ray=RaySpec(**(deploy.ray.model_dump(exclude_none=True) if deploy.ray else {})),
        env=env,
        secret_env=secret_env,
        secrets=tuple(deploy.secrets or ()),
        before_start=cmds.before_start,
        after_stop=cmds.after_stop,
        timeouts=Timeouts(**(deploy.timeouts.model_dump(exclude_none=True) if deploy.timeouts else {})),
        hostfile=runner.hostfile,
        ssh_port=runner.ssh_port,
        docker=runner.docker,
        source=str(path),
    )


def _models(
    entries: Sequence[Entry], deploy: Deploy, set_in: Mapping[str, KeyPath], findings: Findings
) -> tuple[ModelSpec, ...]:
    options = {name: each or ModelOptions() for name, each in (deploy.models or {}).items()}
    names = [entry.name for entry in entries]
    for unknown in options.keys() - set(names) if entries else ():
        home = "serve" if entries[0].path[-1].isdecimal() else "model_args"
        findings.add((*set_in["models"], unknown), "unknown model", f"{home} has: {', '.join(names)}")
    return tuple(_model(entry, options.get(entry.name, ModelOptions()), deploy, findings) for entry in entries)


def _model(entry: Entry, options: ModelOptions, deploy: Deploy, findings: Findings) -> ModelSpec:
    """`deploy.models` over the entry's own `resources`; `deploy.port` over the entry's own port."""

    def first(*values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    own = entry.options
    return ModelSpec(
        name=entry.name,
        model=entry.model,
        engine_args=entry.engine_args,
        action_args=entry.action_args,
        port=first(deploy.port, entry.port, DEFAULT_ENGINE_PORT),
        num_gpus=first(options.num_gpus, own.num_gpus),
        num_cpus=first(options.num_cpus, own.num_cpus),
        replicas=first(options.num_replicas, options.replicas, own.num_replicas, own.replicas, 1),
        where=findings.places.where(entry.path),
    )


def _name(
    given: str | None,
    deploy: Deploy,
    set_in: Mapping[str, KeyPath],
    experiment: Experiment,
    path: Path,
    findings: Findings,
) -> str:
    where = findings.places.where
    if given is not None:
        name, place = given, "--name"
    elif deploy.name is not None:
        name, place = deploy.name, where(set_in["name"])
    elif experiment.exp_name is not None:
        name, place = experiment.exp_name, where(("experiment", "exp_name"))
    else:
        name, place = path.stem, f"{path}: the file's name, for want of experiment.exp_name"
    if not _NAME.fullmatch(name):
        remedy = "letters, digits, '.', '_' and '-', a letter or digit first, 63 at most; or pass --name"
        findings.faults.append(Fault(place, f"{name!r} cannot name a deployment", remedy))
    return name


def _environment(
    entries: Sequence[Entry],
    experiment: Experiment,
    deploy: Deploy,
    set_in: Mapping[str, KeyPath],
    environ: Mapping[str, str],
    findings: Findings,
) -> tuple[dict[str, str], dict[str, Secret]]:
    """The variables of the whole deployment. A secret that two places set differently is a fault."""
    env_path, names = ("experiment", "envs"), deploy.secrets or ()
    env, secret_env = read_variables(experiment.envs or {}, env_path, findings)
    taken = take_secrets(names, set_in["secrets"], environ, findings) if names else {}
    for variables, path in [(taken, set_in.get("secrets", ()))] + [(entry.secret_env, entry.path) for entry in entries]:
        for variable, secret in variables.items():
            if secret_env.setdefault(variable, secret) != secret or variable in env:
                findings.add(path, f"sets {variable} to another value than a place before", "set it in one place")
    return env, secret_env
