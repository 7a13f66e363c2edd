"""A resolved configuration, of whatever dialect, as a `ServeSpec`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flagscale_deploy.config.deployment import (
    read_deploy,
    read_restart,
    read_router,
    refuse_beside_program,
    refuse_other_modes,
)
from flagscale_deploy.config.dialects import BODY_KEYS, read_body, read_entries
from flagscale_deploy.config.environment import read_environment
from flagscale_deploy.config.experiment import CliArgs, Commands, Experiment, Runner, Task
from flagscale_deploy.config.models import apply_cli_args, build_models, remote_options
from flagscale_deploy.config.nodes import read_nodes
from flagscale_deploy.config.per_host import read_host_engine_args, read_host_env
from flagscale_deploy.config.schema.places import Findings
from flagscale_deploy.config.schema.places import Path as KeyPath
from flagscale_deploy.config.schema.settings import Deploy
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.config.spec import RaySpec, ServeSpec, Timeouts
from flagscale_deploy.config.tls import read_tls
from flagscale_deploy.errors import Fault
from flagscale_deploy.support.suggest import suggest

ACTIONS = ("run", "stop", "auto_tune", "dryrun", "query", "test")
"""What FlagScale's run.py does (its `action`)."""

_ROOT_KEYS = ("action", "deploy", "experiment", "hydra", "model_args", "serve")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def translate(
    tree: dict[str, Any], source: Path, name: str | None, environ: Mapping[str, str], findings: Findings
) -> ServeSpec:
    """The specification; `tree` is composed, overridden and interpolated. What is wrong goes to `findings`."""
    for key in tree.keys() - {*_ROOT_KEYS}:
        if key.replace("-", "_") not in BODY_KEYS:
            findings.add((key,), "unknown key", suggest(key, _ROOT_KEYS))
    experiment = read_settings(Experiment, tree.get("experiment"), ("experiment",), findings)
    runner, cmds = experiment.runner or Runner(), experiment.cmds or Commands()
    cli, task, envs = runner.cli_args or CliArgs(), experiment.task or Task(), experiment.envs or {}
    deploy, set_in = read_deploy(tree, findings)
    refuse_other_modes(experiment, deploy, set_in, findings)
    program = task.entrypoint is not None and not deploy.command_line_mode
    if program:
        refuse_beside_program(experiment, deploy, set_in, findings)
    entries = apply_cli_args(read_entries(tree, _doubtful(findings) if program else findings), cli, findings)
    env, secret_env = read_environment(entries, envs, deploy, set_in, environ, findings)
    named = _name(name, deploy, set_in, experiment, source, findings)
    nodes, ray_port = _nodes(tree, findings)
    ray = deploy.ray.model_dump(exclude_none=True) if deploy.ray else {}
    return ServeSpec(
        name=named,
        models=() if program else build_models(entries, deploy, set_in, cli, findings),
        exp_dir=experiment.exp_dir or f"outputs/{named}",
        ray=RaySpec(**({"port": ray_port} | ray)),
        env=env,
        secret_env=secret_env,
        secrets=tuple(deploy.secrets or ()),
        before_start=cmds.before_start,
        after_stop=cmds.after_stop,
        timeouts=Timeouts(**(deploy.timeouts.model_dump(exclude_none=True) if deploy.timeouts else {})),
        hostfile=runner.hostfile,
        ssh_port=runner.ssh_port,
        docker=runner.docker,
        source=str(source),
        router=read_router(deploy, set_in, findings),
        nodes=nodes,
        nnodes=runner.nnodes,
        nproc_per_node=runner.nproc_per_node,
        device_type=runner.device_type,
        host_env=read_host_env(envs, ("experiment", "envs"), findings),
        host_engine_args=read_host_engine_args(experiment.node_args or {}, ("experiment", "node_args"), findings),
        entrypoint=task.entrypoint,
        command_line_mode=deploy.command_line_mode,
        remote_options=remote_options(deploy) if program else {},
        document=_document(tree) if program else {},
        program_port=_program_port(deploy, cli, set_in, findings) if program else None,
        action=_action(tree, findings),
        restart=read_restart(deploy, set_in, findings),
        warm=deploy.warm is not False,
        tls=read_tls(deploy, set_in, findings),
    )


def _program_port(deploy: Deploy, cli: CliArgs, set_in: Mapping[str, KeyPath], findings: Findings) -> int | None:
    """Where a program answers. It chooses its port itself, so we have to be told which."""
    shared = deploy.service.port if deploy.service else None
    port = next((each for each in (cli.port, deploy.port, shared) if each is not None), None)
    if port != "auto":
        return port
    where = set_in.get("port") or set_in.get("service") or ("experiment", "runner", "cli_args")
    findings.add(where, "auto: a program of your own chooses its port itself", "write the port that it listens on")
    return None


def _doubtful(findings: Findings) -> Findings:
    """Findings that nobody reads: what a program of the user's own makes of `model_args` is its own affair."""
    return Findings(findings.places)


def _nodes(tree: dict[str, Any], findings: Findings) -> Any:
    body, path = read_body(tree)
    if isinstance(body, dict) and "hostfile" in body:
        return read_nodes(body["hostfile"], (*path, "hostfile"), findings)
    return read_nodes(tree.get("hostfile"), ("hostfile",), findings)


def _document(tree: dict[str, Any]) -> dict[str, Any]:
    """The configuration as FlagScale hands it to a program: what is served stands under `serve`."""
    if "serve" in tree:
        return tree
    inside = {key: value for key, value in tree.items() if key.replace("-", "_") in BODY_KEYS}
    return {key: value for key, value in tree.items() if key not in inside} | {"serve": inside}


def _action(tree: dict[str, Any], findings: Findings) -> str:
    action = tree.get("action")
    if action is None:
        return "run"
    if not isinstance(action, str) or action not in ACTIONS:
        findings.add(("action",), f"{action!r} is no action", suggest(str(action), ACTIONS))
    return str(action)


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
