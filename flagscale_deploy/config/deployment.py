"""`deploy` settings from wherever they stand, and the modes among them that we do not run."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.overrides import DEPLOY_PLACES
from flagscale_deploy.config.places import Findings, Path
from flagscale_deploy.config.settings import Deploy, Experiment
from flagscale_deploy.config.validate import read_settings

_OTHER_ENGINES = ("sglang", "llama_cpp", "llama.cpp", "tgi", "lmdeploy", "transformers")


def read_deploy(tree: dict[str, Any], findings: Findings) -> tuple[Deploy, dict[str, Path]]:
    """All `deploy` settings as one, and for each of its keys the path of the mapping that it was last set in."""
    merged: dict[str, Any] = {}
    set_in: dict[str, Path] = {}
    for path in DEPLOY_PLACES:
        value = _at(tree, path)
        if value is not None:
            given = read_settings(Deploy, value, path, findings).model_dump(exclude_none=True)
            _merge(merged, given)
            set_in.update({key: (*path, key) for key in given})
    return Deploy.model_validate(merged), set_in


def refuse_other_modes(experiment: Experiment, deploy: Deploy, set_in: dict[str, Path], findings: Findings) -> None:
    """Name what FlagScale has and this tool does not run, so that nothing is half deployed."""
    task = experiment.task
    where = ("experiment", "task")
    if task and task.type not in (None, "serve"):
        findings.add((*where, "type"), f"{task.type!r} is not run here", "this tool serves: type: serve")
    if task and task.backend and task.backend.lower() in _OTHER_ENGINES:
        findings.add((*where, "backend"), f"{task.backend!r} is not run here", "this tool serves with backend: vllm")
    if task and task.entrypoint and not deploy.command_line_mode:
        remedy = "set deploy.command-line-mode: true to run vllm serve, or entrypoint: null"
        findings.add((*where, "entrypoint"), f"a program of your own ({task.entrypoint}) is not run here", remedy)
    if deploy.prefill_decode_disaggregation:
        path = set_in["prefill_decode_disaggregation"]
        findings.add(path, "prefill and decode apart are not run here", "set it to false")


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
