"""Translate a resolved configuration of any dialect into a `ServeSpec`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from flagscale_deploy.config.deployment import (
    ignored_by_programs,
    other_modes,
    read_deploy,
    read_ray,
    read_restart,
    read_router,
)
from flagscale_deploy.config.dialects.forms import BODY_KEYS, read_body, read_entries
from flagscale_deploy.config.environment import copies_of_secrets, read_environment
from flagscale_deploy.config.experiment import CliArgs, Commands, Experiment, Runner, Task
from flagscale_deploy.config.gate import read_gate
from flagscale_deploy.config.models import apply_cli_args, build_models, remote_options
from flagscale_deploy.config.nodes import read_nodes
from flagscale_deploy.config.per_host import read_host_engine_args, read_host_env
from flagscale_deploy.config.pools import warn_of_connector
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Places
from flagscale_deploy.config.schema.places import Path as KeyPath
from flagscale_deploy.config.schema.settings import Deploy
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.config.spec import InlineNode, ServeSpec, Timeouts
from flagscale_deploy.config.tls import read_tls
from flagscale_deploy.errors import Fault, InputError, at_most
from flagscale_deploy.support.paths import deployment_name_fault
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.value import Tree

ACTIONS = ("run", "stop", "auto_tune", "dryrun", "query", "test")
"""What FlagScale's run.py does (its `action`)."""

FEW = 4
_ROOT_KEYS = ("action", "deploy", "experiment", "hydra", "model_args", "serve")


def translate(
    tree: Tree, source: Path, name: str | None, environ: Mapping[str, str], places: Places
) -> tuple[ServeSpec, list[Fault]]:
    """Return the specification, and what is wrong; `tree` is composed, overridden and interpolated."""
    faults = KeyFaults()
    unknown = [key for key in tree if key not in _ROOT_KEYS and key.replace("-", "_") not in BODY_KEYS]
    if len(unknown) == len(tree) >= FEW:  # some other file, of which nothing is quoted
        remedy = f"name a serve YAML; its keys are {', '.join(_ROOT_KEYS)}"
        raise InputError.at(places.where(()), "has none of the keys of a serve YAML", remedy)
    for key in unknown:
        faults.add((key,), "unknown key", suggest(key, _ROOT_KEYS))
    experiment = faults.take(read_settings(Experiment, tree.get("experiment"), ("experiment",)))
    runner, cmds = experiment.runner or Runner(), experiment.cmds or Commands()
    cli, task, envs = runner.cli_args or CliArgs(), experiment.task or Task(), experiment.envs or {}
    deploy, set_in = faults.take(read_deploy(tree))
    faults += other_modes(experiment, deploy, set_in)
    program = task.entrypoint is not None and not deploy.command_line_mode
    if program:
        faults += ignored_by_programs(experiment, deploy, set_in)
    entries, faults_of_models = read_entries(tree)
    if not program:  # a program of the user's own may read `model_args` in its own way
        faults += faults_of_models
    entries = faults.take(apply_cli_args(entries, cli))
    env, secret_env = faults.take(read_environment(entries, envs, deploy, set_in, environ))
    nodes, ray_port = faults.take(_nodes(tree))
    models = () if program else faults.take(build_models(entries, deploy, set_in, cli, places))
    ray, executor = faults.take(read_ray(deploy, set_in, ray_port, models))
    deployment, where = _named(name, deploy, set_in, experiment, places)
    spec = ServeSpec(
        name=deployment,
        models=models,
        exp_dir=experiment.exp_dir or f"outputs/{deployment}",
        ray=ray,
        executor=executor,
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
        router=faults.take(read_router(deploy, set_in)),
        gate=faults.take(read_gate(deploy, set_in)),
        nodes=nodes,
        nnodes=runner.nnodes,
        nproc_per_node=runner.nproc_per_node,
        device_type=runner.device_type,
        host_env=faults.take(read_host_env(envs, ("experiment", "envs"))),
        host_engine_args=faults.take(read_host_engine_args(experiment.node_args or {}, ("experiment", "node_args"))),
        entrypoint=task.entrypoint,
        command_line_mode=deploy.command_line_mode,
        remote_options=remote_options(deploy) if program else {},
        document=_document(tree) if program else {},
        program_port=faults.take(_program_port(deploy, cli, set_in)) if program else None,
        action=faults.take(_action(tree)),
        restart=faults.take(read_restart(deploy, set_in)),
        warm=deploy.warm is not False,
        tls=faults.take(read_tls(deploy, set_in)),
        warnings=tuple(places.locate(warn_of_connector(deploy, set_in))),
        locate=_locator(tree, set_in, places),
    )
    return spec, [
        *deployment_name_fault(deployment, where),
        *places.locate(faults),
        *at_most(_copies(spec, places), places.file),
    ]


def _copies(spec: ServeSpec, places: Places) -> Iterator[Fault]:
    """Yield a fault for each variable into which a secret would be copied: the deployment's, of a host, of a pool."""
    envs = ("experiment", "envs")
    yield from copies_of_secrets(spec.env, spec.secret_env, places.where(envs))
    for host, env in spec.host_env.items():
        yield from copies_of_secrets(env, spec.secret_env, places.where((*envs, "nodes_envs", host)))
    for pool in (pool for model in spec.models for pool in (model.prefill, model.decode) if pool is not None):
        yield from copies_of_secrets(pool.env, spec.secret_env, f"{pool.where}.env")


def _locator(tree: Tree, set_in: Mapping[str, KeyPath], places: Places) -> Callable[[KeyPath], str]:
    """Return what says where a key path stands: `deploy` and `hostfile` in whichever place they were set."""

    def locate(path: KeyPath) -> str:
        if path[0] == "deploy" and path[1:] and path[1] in set_in:
            return places.where((*set_in[path[1]], *path[2:]))
        return places.where(path if path[0] in tree or path[0] not in BODY_KEYS else ("serve", *path))

    return locate


def _program_port(deploy: Deploy, cli: CliArgs, set_in: Mapping[str, KeyPath]) -> Checked[int | None]:
    """Return the port that a program answers on. It chooses it itself, so the configuration has to name it."""
    faults = KeyFaults()
    ports = (cli.port, deploy.port, deploy.service.port if deploy.service else None)
    port = next((port for port in ports if port is not None), None)
    if port != "auto":
        return port, faults
    where = set_in.get("port") or set_in.get("service") or ("experiment", "runner", "cli_args")
    faults.add(where, "auto: a program of your own chooses its port itself", "write the port that it listens on")
    return None, faults


def _nodes(tree: Tree) -> Checked[tuple[tuple[InlineNode, ...], int | None]]:
    body, path = read_body(tree)
    if isinstance(body, dict) and "hostfile" in body:
        return read_nodes(body["hostfile"], (*path, "hostfile"))
    return read_nodes(tree.get("hostfile"), ("hostfile",))


def _document(tree: Tree) -> Tree:
    """Return the configuration as FlagScale hands it to a program: what is served stands under `serve`."""
    if "serve" in tree:
        return tree
    inside = {key: value for key, value in tree.items() if key.replace("-", "_") in BODY_KEYS}
    return {key: value for key, value in tree.items() if key not in inside} | {"serve": inside}


def _action(tree: Tree) -> Checked[str]:
    faults = KeyFaults()
    action = tree.get("action")
    if action is None:
        return "run", faults
    if not isinstance(action, str) or action not in ACTIONS:
        faults.add(("action",), f"{quoted(action)} is not an action", suggest(str(action), ACTIONS))
    return str(action), faults


def _named(
    name: str | None, deploy: Deploy, set_in: Mapping[str, KeyPath], experiment: Experiment, places: Places
) -> tuple[str, str]:
    """Return the deployment's name and where it was set."""
    if name is not None:
        return name, "--name"
    if deploy.name is not None:
        return deploy.name, places.where(set_in["name"])
    if experiment.exp_name is not None:
        return experiment.exp_name, places.where(("experiment", "exp_name"))
    return Path(places.file).stem, f"{places.file}: the file's name, as experiment.exp_name is not set"
