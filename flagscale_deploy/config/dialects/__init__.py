"""Each published form of the configuration, translated into models. No code behind this border knows of forms."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.dialects import list_form, llm_form, seed
from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.support.suggest import suggest

MODEL_ROOTS = ("model_args", *llm_form.ROOTS)
BODY_KEYS = (*MODEL_ROOTS, "deploy", "hostfile", "command_line_mode", "use_native_serve", "logging")
"""The keys beside the models: at the root of a file that is a group by itself, else under `serve`."""

_PROPOSED = ("model_args", "deploy", "hostfile")


def read_body(tree: dict[str, Any]) -> tuple[Any, Path]:
    """The part of a configuration that says what is served, with `_` in its keys, and where it stands."""
    if "serve" in tree:
        serve = tree["serve"]
        return (_underscored(serve) if isinstance(serve, dict) else serve), ("serve",)
    return {key: value for key, value in _underscored(tree).items() if key in BODY_KEYS}, ()


def read_entries(tree: dict[str, Any], findings: Findings) -> list[Entry]:
    """The models of a resolved configuration, in the order of the file; faults go to `findings`."""
    body, path = read_body(tree)
    if path:
        for key in tree.keys() & {*MODEL_ROOTS}:
            findings.add((key,), "the models are under serve: already", "keep one of the two")
    if isinstance(body, list):
        return list_form.read(body, path, findings)
    if not isinstance(body, dict):
        findings.add(path, "holds no models", "expected model_args: and deploy:, or a list of - serve_id: …")
        return []
    if is_composition(body):
        _refuse_composition(body, path, findings)
        return []
    for key in body.keys() - {*BODY_KEYS}:
        findings.add((*path, key), "unknown key", suggest(key, _PROPOSED))
    return _read_models(body, path, findings)


def is_composition(body: Any) -> bool:
    """Whether models are modules that depend on each other, which FlagScale builds a Ray Serve graph of."""
    return bool(_modules(body))


def _read_models(body: dict[str, Any], path: Path, findings: Findings) -> list[Entry]:
    roots = [root for root in MODEL_ROOTS if root in body]
    if len(roots) > 1:
        findings.add((*path, roots[1]), f"the models are under {roots[0]}: already", "keep one of the two")
    deploy = body.get("deploy")
    instances = deploy.get("instance") if isinstance(deploy, dict) else None
    root = roots[0] if roots else "model_args"
    if root in llm_form.ROOTS:
        return llm_form.read(root, body[root], instances, path, findings)
    if instances is not None:
        remedy = "write deploy.models.<name>.num_replicas"
        findings.add((*path, "deploy", "instance"), "belongs to the form with llm:", remedy)
    return seed.read(body.get(root), (*path, root), findings)


def _modules(body: Any) -> list[str]:
    deploy = body.get("deploy") if isinstance(body, dict) else None
    models = deploy.get("models") if isinstance(deploy, dict) else None
    if not isinstance(models, dict):
        return []
    return [name for name, each in models.items() if isinstance(each, dict) and each.keys() & {"module", "depends"}]


def _refuse_composition(body: Any, path: Path, findings: Findings) -> None:
    remedy = "name a model to serve with vLLM under model_args; run a composition with FlagScale itself"
    where = (*path, "deploy", "models", _modules(body)[0])
    findings.add(where, "is part of a composition graph (module, depends)", remedy)


def _underscored(keys: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in keys.items()}
