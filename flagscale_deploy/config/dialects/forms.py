"""Tell the published forms of a configuration apart, and read the models of each."""

from __future__ import annotations

from flagscale_deploy.config.dialects import list_form, llm_form, model_args_form
from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.value import Tree, Value

MODEL_ROOTS = ("model_args", *llm_form.ROOTS)
BODY_KEYS = (*MODEL_ROOTS, "deploy", "hostfile", "command_line_mode", "use_native_serve", "logging")
"""The keys beside the models: at the root of a file that is a group by itself, else under `serve`."""

_PROPOSED = ("model_args", "deploy", "hostfile")


def read_body(tree: Tree) -> tuple[Value, Path]:
    """Return the part of a configuration with models and `deploy`, with `_` in its keys, and where it stands."""
    if "serve" in tree:
        serve = tree["serve"]
        return (_underscored(serve) if isinstance(serve, dict) else serve), ("serve",)
    return {key: value for key, value in _underscored(tree).items() if key in BODY_KEYS}, ()


def read_entries(tree: Tree) -> Checked[list[Entry]]:
    """Return the models of a resolved configuration, in the order of the file."""
    faults = KeyFaults()
    body, path = read_body(tree)
    if path:
        for key in tree.keys() & {*MODEL_ROOTS}:
            faults.add((key,), "the models are already under serve:", "keep one of the two")
    if isinstance(body, list):
        return faults.take(list_form.read(body, path)), faults
    if not isinstance(body, dict):
        faults.add(path, "has no models", "expected model_args: and deploy:, or a list of - serve_id: …")
        return [], faults
    if modules := _modules(body):
        remedy = "name a model to serve with vLLM under model_args; run a composition with FlagScale itself"
        where = (*path, "deploy", "models", modules[0])
        faults.add(where, "is part of a composition graph (module, depends)", remedy)
        return [], faults
    for key in body.keys() - {*BODY_KEYS}:
        faults.add((*path, key), "unknown key", suggest(key, _PROPOSED))
    return faults.take(_read_models(body, path)), faults


def is_composition(body: Value) -> bool:
    """Return whether models are modules that depend on each other, which FlagScale builds a Ray Serve graph of."""
    return bool(_modules(body))


def _read_models(body: Tree, path: Path) -> Checked[list[Entry]]:
    faults = KeyFaults()
    roots = [root for root in MODEL_ROOTS if root in body]
    if len(roots) > 1:
        faults.add((*path, roots[1]), f"the models are already under {roots[0]}:", "keep one of the two")
    deploy = body.get("deploy")
    instances = deploy.get("instance") if isinstance(deploy, dict) else None
    root = roots[0] if roots else "model_args"
    if root in llm_form.ROOTS:
        return faults.take(llm_form.read(root, body[root], instances, path)), faults
    if instances is not None:
        remedy = "write deploy.models.<name>.num_replicas"
        faults.add((*path, "deploy", "instance"), "belongs to the form with llm:", remedy)
    return faults.take(model_args_form.read(body.get(root), (*path, root))), faults


def _modules(body: Value) -> list[str]:
    deploy = body.get("deploy") if isinstance(body, dict) else None
    models = deploy.get("models") if isinstance(deploy, dict) else None
    if not isinstance(models, dict):
        return []
    return [name for name, model in models.items() if isinstance(model, dict) and model.keys() & {"module", "depends"}]


def _underscored(keys: Tree) -> Tree:
    return {key.replace("-", "_"): value for key, value in keys.items()}
