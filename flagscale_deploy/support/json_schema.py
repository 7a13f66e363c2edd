"""JSON Schemas of pydantic's models as editors need them: for YAML as people write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LIMITS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
"""What pydantic leaves as it is where a validator of ours comes before the limit."""


def as_written(schema: Mapping[str, Any], template: str) -> dict[str, Any]:
    """Return a model's schema that takes all that may stand in its place in a file.

    Text that matches `template` stands for any value, and keys may be written with `-` for `_`.
    """
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result |= keys({name: as_written(each, template) for name, each in value.items()}, template)
        elif isinstance(value, Mapping):
            result[key] = as_written(value, template)
        elif isinstance(value, list):
            result[key] = [as_written(each, template) if isinstance(each, Mapping) else each for each in value]
        elif key not in ("title", "default"):
            result[_LIMITS.get(key, key)] = value
    return result


def mapping(properties: Mapping[str, Any], template: str) -> dict[str, Any]:
    """Return the schema of a mapping that has these keys alone."""
    return {"type": "object", **keys(properties, template), "additionalProperties": False}


def keys(properties: Mapping[str, Any], template: str) -> dict[str, Any]:
    """Return the part of a schema that names keys, in either spelling; each takes a template, too."""
    named = {name: _or_template(schema, template) for name, schema in properties.items()}
    dashed = {f"^{name.replace('_', '[-_]')}$": schema for name, schema in named.items() if "_" in name}
    return {"properties": named, **({"patternProperties": dashed} if dashed else {})}


def nothing_or(*schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that one of these fits, or nothing at all (`KEY:`)."""
    return {"anyOf": [*schemas, {"type": "null"}]}


def _or_template(schema: Mapping[str, Any], template: str) -> dict[str, Any]:
    """Return a key's schema that also takes a template; one that takes any text stays as it is."""
    choices = schema.get("anyOf") or [{key: value for key, value in schema.items() if key != "description"}]
    if {} in choices or {"type": "string"} in choices:
        return dict(schema)
    described = {"description": schema["description"]} if "description" in schema else {}
    return {**described, "anyOf": [*choices, {"type": "string", "pattern": template}]}
