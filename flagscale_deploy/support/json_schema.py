"""JSON Schemas of pydantic's models for editors, which check YAML as people write it."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.support.value import Tree, Value

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LIMITS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
"""Limits that pydantic does not translate where a validator of ours comes before them."""


def as_written(schema: Mapping[str, Value], template: str) -> Tree:
    """Return a model's schema that accepts every way in which a file may write it.

    Text that matches `template` stands for any value, and keys may be written with `-` for `_`.
    """
    result: Tree = {}
    for key, value in schema.items():
        if isinstance(value, Mapping):
            if key == "properties":
                result |= keys({name: _part(item, template) for name, item in value.items()}, template)
            else:
                result[key] = as_written(value, template)
        elif isinstance(value, list):
            result[key] = [_part(item, template) for item in value]
        elif key not in ("title", "default"):
            result[_LIMITS.get(key, key)] = value
    return result


def _part(value: Value, template: str) -> Value:
    return as_written(value, template) if isinstance(value, Mapping) else value


def mapping(properties: Mapping[str, Value], template: str) -> Tree:
    """Return the schema of a mapping that has these keys alone."""
    return {"type": "object", **keys(properties, template), "additionalProperties": False}


def keys(properties: Mapping[str, Value], template: str) -> Tree:
    """Return the part of a schema that names keys, in either spelling; each takes a template, too."""
    named: Tree = {
        name: _or_template(schema, template) if isinstance(schema, Mapping) else schema
        for name, schema in properties.items()
    }
    dashed: Tree = {f"^{name.replace('_', '[-_]')}$": schema for name, schema in named.items() if "_" in name}
    return {"properties": named, **({"patternProperties": dashed} if dashed else {})}


def nothing_or(*schemas: Mapping[str, Value]) -> Tree:
    """Return a schema for one of these, or for no value at all (`KEY:`)."""
    return {"anyOf": [*schemas, {"type": "null"}]}


def _or_template(schema: Mapping[str, Value], template: str) -> Tree:
    """Return a key's schema that also takes a template; one that takes any text stays as it is."""
    options = schema.get("anyOf")
    alone = {key: value for key, value in schema.items() if key != "description"}
    choices = options if isinstance(options, list) else [alone]
    if {} in choices or {"type": "string"} in choices:
        return dict(schema)
    described = {"description": schema["description"]} if "description" in schema else {}
    return {**described, "anyOf": [*choices, {"type": "string", "pattern": template}]}
