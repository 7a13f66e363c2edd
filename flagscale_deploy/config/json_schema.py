"""The JSON Schema of a serve YAML, made from the models of its keys."""

from __future__ import annotations

from pydantic.json_schema import models_json_schema

from flagscale_deploy.config.dialects import list_form
from flagscale_deploy.config.dialects.forms import MODEL_ROOTS
from flagscale_deploy.config.experiment import Experiment
from flagscale_deploy.config.nodes import Node
from flagscale_deploy.config.schema.settings import Deploy, ModelOptions
from flagscale_deploy.config.translate import ACTIONS
from flagscale_deploy.support.json_schema import DIALECT, as_written, mapping, nothing_or
from flagscale_deploy.support.value import Tree

INTERPOLATION = r"\$\{"
_MODELS = (Deploy, Experiment, ModelOptions, Node)
_ANYTHING: Tree = {}
_FLAGS: Tree = {"type": "object", "description": "flags of vLLM, with `-` or `_`"}


def serve_schema() -> Tree:
    """Return the schema of a serve YAML of any form, of an experiment file, and of a group file of Hydra."""
    models = as_written(models_json_schema([(model, "validation") for model in _MODELS])[1]["$defs"], INTERPOLATION)
    own: Tree = {"Model": _model(), "Entry": _entry(), "Hostfile": _hostfile(), "Models": _models()}
    return {
        "$schema": DIALECT,
        "title": "flagscale-deploy: serve YAML",
        "anyOf": [_root(), {"type": "array", "items": _ref("Entry"), "minItems": 1}],
        "$defs": {**models, **own},
    }


def _ref(name: str) -> Tree:
    return {"$ref": f"#/$defs/{name}"}


def _root() -> Tree:
    """Return the keys at the top: those of `serve` by themselves, or beside `experiment`."""
    body = _body()
    listed: Tree = {"type": "array", "items": _ref("Entry"), "minItems": 1}
    return _closed(
        {
            **body,
            "serve": {"anyOf": [_closed(body), listed], "description": "what is served, where it has a key of its own"},
            "experiment": nothing_or(_ref("Experiment")),
            "action": {"enum": [*ACTIONS, None], "description": "what `run` does. Default: run"},
            "defaults": {"type": "array", "description": "Hydra's list: `_self_`, `serve: NAME`"},
            "hydra": _ANYTHING,
        }
    )


def _body() -> Tree:
    """Return the keys of what is served."""
    return {
        **{root: _ref("Models") if root == "model_args" else _ref("Model") for root in MODEL_ROOTS},
        "deploy": nothing_or(_ref("Deploy")),
        "hostfile": nothing_or(_ref("Hostfile")),
        "command_line_mode": _ANYTHING,
        "use_native_serve": _ANYTHING,
        "logging": _ANYTHING,
    }


def _closed(properties: Tree) -> Tree:
    """Return the schema of a mapping that has these keys alone."""
    return mapping(properties, INTERPOLATION)


def _models() -> Tree:
    return {"type": "object", "minProperties": 1, "additionalProperties": _ref("Model")}


def _model() -> Tree:
    """Return the schema of a model of `model_args`: its own keys, and any flag of vLLM."""
    actions: Tree = {"type": "array", "items": {"type": "string"}}
    return {
        **_FLAGS,
        "properties": {
            "model-tag": {"type": "string", "description": "a path on the hosts, or a repository id"},
            "action-args": {**nothing_or(actions), "description": "flags without a value, or `flag=value`"},
        },
        "anyOf": [{"required": [name]} for name in ("model-tag", "model_tag", "model")],
    }


def _entry() -> Tree:
    """Return the schema of an entry of the list form."""
    described: Tree = {
        "serve_id": {"type": ["string", "number"], "description": "the model's name"},
        "engine": {"enum": ["vllm", None], "description": "`vllm`; every other engine is refused. Default: vllm"},
        "engine_args": nothing_or(_FLAGS),
        "engine_args_specific": {"type": ["object", "null"], "description": "flags of one engine, as in `vllm: …`"},
        "resources": nothing_or(_ref("ModelOptions")),
    }
    properties = {key: described.get(key, _ANYTHING) for key in list_form.KEYS}
    return {**_closed(properties), "anyOf": [{"required": [name]} for name in ("serve_id", "serve-id")]}


def _hostfile() -> Tree:
    """Return the schema of `hostfile.nodes`."""
    roles = [{**_closed({role: _ref("Node")}), "minProperties": 1} for role in ("master", "node")]
    nodes: Tree = {"type": "array", "items": {"anyOf": roles}, "minItems": 1}
    return {**_closed({"nodes": nodes}), "required": ["nodes"]}
