"""The JSON Schema of a serve YAML, made from the models of its keys."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from flagscale_deploy.config.dialects import MODEL_ROOTS, list_form
from flagscale_deploy.config.experiment import Experiment
from flagscale_deploy.config.nodes import Node
from flagscale_deploy.config.schema.settings import Deploy, ModelOptions
from flagscale_deploy.config.translate import ACTIONS
from flagscale_deploy.support.json_schema import DIALECT, as_written, mapping, nothing_or

INTERPOLATION = r"\$\{"
_MODELS = (Deploy, Experiment, ModelOptions, Node)
_ANYTHING: dict[str, Any] = {}
_FLAGS = {"type": "object", "description": "flags of vLLM, with `-` or `_`"}


def serve_schema() -> dict[str, Any]:
    """Return the schema of a serve YAML of any form, of an experiment file, and of a group file of Hydra."""
    schema = as_written(models_json_schema([(model, "validation") for model in _MODELS])[1], INTERPOLATION)
    own = {"Model": _model(), "Entry": _entry(), "Hostfile": _hostfile(), "Models": _models()}
    return {
        "$schema": DIALECT,
        "title": "flagscale-deploy: serve YAML",
        "anyOf": [_root(), {"type": "array", "items": _ref("Entry"), "minItems": 1}],
        "$defs": schema["$defs"] | own,
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _root() -> dict[str, Any]:
    """What stands at the top: the keys of `serve` by themselves, or beside where and how."""
    body = _body()
    listed = {"type": "array", "items": _ref("Entry"), "minItems": 1}
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


def _body() -> dict[str, Any]:
    """The keys that say what is served."""
    return {
        **{root: _ref("Models") if root == "model_args" else _ref("Model") for root in MODEL_ROOTS},
        "deploy": nothing_or(_ref("Deploy")),
        "hostfile": nothing_or(_ref("Hostfile")),
        "command_line_mode": _ANYTHING,
        "use_native_serve": _ANYTHING,
        "logging": _ANYTHING,
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    """A mapping of these keys alone."""
    return mapping(properties, INTERPOLATION)


def _models() -> dict[str, Any]:
    return {"type": "object", "minProperties": 1, "additionalProperties": _ref("Model")}


def _model() -> dict[str, Any]:
    """A model of `model_args`: its own keys, and any flag of vLLM."""
    actions = {"type": "array", "items": {"type": "string"}}
    return {
        **_FLAGS,
        "properties": {
            "model-tag": {"type": "string", "description": "a path on the hosts, or a repository id"},
            "action-args": {**nothing_or(actions), "description": "flags without a value, or `flag=value`"},
        },
        "anyOf": [{"required": [name]} for name in ("model-tag", "model_tag", "model")],
    }


def _entry() -> dict[str, Any]:
    """An entry of the list form."""
    known = {
        "serve_id": {"type": ["string", "number"], "description": "the model's name"},
        "engine": {"enum": ["vllm", None], "description": "`vllm`; every other engine is refused. Default: vllm"},
        "engine_args": nothing_or(_FLAGS),
        "engine_args_specific": {"type": ["object", "null"], "description": "flags of one engine, as in `vllm: …`"},
        "resources": nothing_or(_ref("ModelOptions")),
    }
    properties = {key: known.get(key, _ANYTHING) for key in list_form.KEYS}
    return {**_closed(properties), "anyOf": [{"required": [name]} for name in ("serve_id", "serve-id")]}


def _hostfile() -> dict[str, Any]:
    """`hostfile.nodes`."""
    roles = [{**_closed({role: _ref("Node")}), "minProperties": 1} for role in ("master", "node")]
    nodes = {"type": "array", "items": {"anyOf": roles}, "minItems": 1}
    return {**_closed({"nodes": nodes}), "required": ["nodes"]}
