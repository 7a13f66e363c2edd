"""`deploy` settings from wherever they stand, and the modes among them that we do not run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flagscale_deploy.config.dialects import is_composition, read_body
from flagscale_deploy.config.experiment import Experiment
from flagscale_deploy.config.overrides import DEPLOY_PLACES
from flagscale_deploy.config.router_flags import FLAGS, OF_OTHER_MODES, SET_BY_US
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import BackoffSettings, Deploy, RouterSettings
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.config.spec import RestartSpec, RouterSpec
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.suggest import suggest


def read_deploy(tree: dict[str, Any], findings: Findings) -> tuple[Deploy, dict[str, Path]]:
    """All `deploy` settings as one, and for each of its keys the path of the mapping that it was last set in."""
    body, place = read_body(tree)
    if is_composition(body):
        return Deploy(), {}
    # The oldest files have the mode beside `deploy`, and not in it.
    beside = {"command_line_mode": body["command_line_mode"]} if _beside(body) else {}
    merged: dict[str, Any] = {}
    set_in: dict[str, Path] = {}
    for path, value in [(place, beside), *((each, _at(tree, each)) for each in DEPLOY_PLACES)]:
        if value is not None:
            given = read_settings(Deploy, value, path, findings).model_dump(exclude_none=True)
            _merge(merged, given)
            set_in.update({key: (*path, key) for key in given})
    return Deploy.model_validate(merged), set_in


def read_router(deploy: Deploy, set_in: dict[str, Path], findings: Findings) -> RouterSpec:
    """`deploy.router`; its keys that are not ours are flags of vllm-router."""
    if deploy.router is None:
        return RouterSpec()
    flags = {}
    for key, value in (deploy.router.model_extra or {}).items():
        flag = key.replace("_", "-")
        if flag in SET_BY_US:
            findings.add((*set_in["router"], key), "is set by this tool", "take it out")
        elif flag in OF_OTHER_MODES:
            findings.add((*set_in["router"], key), "belongs to a mode that is not run here", "take it out")
        elif is_secret_name(key):
            findings.add((*set_in["router"], key), "would be seen in the list of processes", "set the model's api-key")
        elif flag not in FLAGS:
            known = (*RouterSettings.model_fields, *(each.replace("-", "_") for each in FLAGS))
            findings.add((*set_in["router"], key), "is no flag of vllm-router", suggest(key, known))
        elif value is not None:
            flags[flag] = value
    given = deploy.router.model_dump(include={"enabled", "policy", "host"}, exclude_none=True)
    port = None if deploy.router.port == "auto" else deploy.router.port
    return RouterSpec(**given, port=port, metrics_port=deploy.router.prometheus_port, options=flags)


def read_restart(deploy: Deploy, set_in: dict[str, Path], findings: Findings) -> RestartSpec:
    """`deploy.restart`."""
    given = deploy.restart
    if given is None:
        return RestartSpec()
    backoff = given.backoff or BackoffSettings()
    asked: dict[str, Any] = {
        "policy": given.policy,
        "maximum": given.max,
        "first": backoff.first,
        "factor": backoff.factor,
        "ceiling": backoff.max,
        "reset_after": given.reset_after,
        "boot": given.boot,
    }
    spec = RestartSpec(**{name: value for name, value in asked.items() if value is not None})
    if spec.first > spec.ceiling:
        if backoff.max is not None:
            problem = f"{spec.first:g} s is more than the longest wait, {spec.ceiling:g} s"
            findings.add((*set_in["restart"], "backoff", "first"), problem, "make max the larger one")
        return replace(spec, ceiling=spec.first)
    return spec


def refuse_other_modes(experiment: Experiment, deploy: Deploy, set_in: dict[str, Path], findings: Findings) -> None:
    """Name what FlagScale has and this tool does not run, so that nothing is half deployed."""
    task = experiment.task
    where = ("experiment", "task")
    if task and task.type not in (None, "serve"):
        findings.add((*where, "type"), f"{task.type!r} is not run here", "this tool serves: type: serve")
    if task and (task.backend or "").strip().lower() not in ("", "vllm"):
        findings.add(
            (*where, "backend"),
            f"{task.backend!r} is not run here",
            "set backend: vllm, or run it with FlagScale itself",
        )
    if deploy.prefill_decode_disaggregation:
        path = set_in["prefill_decode_disaggregation"]
        remedy = "set it to false to have one engine do both, or run it with FlagScale itself"
        findings.add(path, "prefill and decode apart are not run here", remedy)
    if deploy.enable_composition:
        remedy = "set it to false, and name a model to serve with vLLM; run a composition with FlagScale itself"
        findings.add(set_in["enable_composition"], "composition graphs are not run here", remedy)


def refuse_beside_program(experiment: Experiment, deploy: Deploy, set_in: dict[str, Path], findings: Findings) -> None:
    """What is said of engines, where a program of the user's own runs instead: it would be read and do nothing."""
    for name, options in (deploy.models or {}).items():
        if options is not None and options.hosts is not None:
            remedy = "Ray places the tasks of a program: use resources: {TYPE: 1}, with type: TYPE of the hosts"
            findings.add((*set_in["models"], name, "hosts"), "does nothing for a program of your own", remedy)
    for host, node in (experiment.node_args or {}).items():
        if node is not None and node.engine_args:
            path = ("experiment", "node_args", host, "engine_args")
            findings.add(
                path, "does nothing for a program of your own", "the program starts its engines: tell it there"
            )
    if deploy.router is not None and deploy.router.model_dump(exclude_none=True).keys() - {"enabled"}:
        findings.add(set_in["router"], "no router stands before a program of your own", "set deploy.router: none")
    if deploy.tls is not None:
        remedy = "take it out; the program starts its servers: tell it there"
        findings.add(set_in["tls"], "does nothing for a program of your own", remedy)


def _beside(body: Any) -> bool:
    return isinstance(body, dict) and body.get("command_line_mode") is not None


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value
