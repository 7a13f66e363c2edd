"""The JSON Schema of an inventory in YAML: the short form and Ansible's."""

from __future__ import annotations

from flagscale_deploy.inventory.ansible_vars import BARE, NAMES, PREFIX
from flagscale_deploy.inventory.keys import HostKeys
from flagscale_deploy.inventory.short import PER_HOST
from flagscale_deploy.support.json_schema import DIALECT, as_written, nothing_or
from flagscale_deploy.support.value import Tree

TEMPLATE = r"\{\{"
_NAMES: Tree = {"type": "array", "items": {"type": "string"}}


def inventory_schema() -> Tree:
    """Return the schema; variables of Ansible that are not ours may be anything."""
    keys = as_written(HostKeys.model_json_schema(), TEMPLATE)["properties"]
    assert isinstance(keys, dict), "the keys of a model"
    return {
        "$schema": DIALECT,
        "title": "flagscale-deploy: inventory",
        "if": _short_form(),
        "then": _short(keys),
        "else": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Group"}},
        "$defs": {"Group": nothing_or(_group()), "Variables": nothing_or(_variables(keys))},
    }


def _short_form() -> Tree:
    """Return a schema that only the short form fits, and no group of Ansible's called `hosts`."""
    named = [{"required": ["hosts"]}, {"required": ["defaults"]}]
    return {"type": "object", "anyOf": named, "not": {"required": ["all"]}}


def _short(keys: Tree) -> Tree:
    host: Tree = {"type": "object", "properties": {"name": {"type": "string"}, **keys}, "required": ["name"]}
    shared: Tree = {key: value for key, value in keys.items() if key not in PER_HOST}
    properties: Tree = {
        "hosts": {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {**host, "additionalProperties": False}]},
            "description": "`gpu01`, `user@gpu02:2222`, `gpu[01:16]`, or a mapping with `name` and keys",
        },
        "defaults": {
            **nothing_or({"type": "object", "properties": shared, "additionalProperties": False}),
            "description": "keys of every host that does not set them",
        },
        "groups": {
            **nothing_or({"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, _NAMES]}}),
            "description": "hosts by group, for `--limit`; the first host of `head` runs Ray's head",
        },
    }
    return {"properties": properties, "required": ["hosts"], "additionalProperties": False}


def _group() -> Tree:
    """Return the schema of a group of Ansible's."""
    named: Tree = {"type": ["object", "string", "null"]}
    return {
        "type": "object",
        "properties": {
            "hosts": {**named, "additionalProperties": {"$ref": "#/$defs/Variables"}},
            "children": {**named, "additionalProperties": {"$ref": "#/$defs/Group"}},
            "vars": {"$ref": "#/$defs/Variables"},
        },
        "additionalProperties": False,
    }


def _variables(keys: Tree) -> Tree:
    """Return the schema of our keys, under a prefix and under Ansible's names; bare words may be anybody's."""
    ours: Tree = {f"{PREFIX}{key}": schema for key, schema in keys.items()}
    bare: Tree = {key: {"description": f"the same as `{PREFIX}{key}`, where its value is of that type"} for key in BARE}
    ansible: Tree = {name: {"description": f"the same as `{PREFIX}{key}`"} for name, key in NAMES.items()}
    return {"type": "object", "properties": {**ours, **bare, **ansible}}
