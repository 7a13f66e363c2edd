"""Check a mapping of the user's against its class in `settings.py`."""

from __future__ import annotations

from typing import TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flagscale_deploy.config.schema.base import Settings
from flagscale_deploy.config.schema.places import Checked, KeyFault, KeyFaults, Path
from flagscale_deploy.config.schema.values import UnfitError
from flagscale_deploy.errors import MOST_FAULTS
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.value import Value

S = TypeVar("S", bound=Settings)

_MAPPING = ("expected a mapping", "write KEY: VALUE, each on a line of its own below it")
_WHOLE = ("expected a whole number", "write it in digits")
_NUMBER = ("expected a number", "write it in digits")
_EXPECTED = {
    **dict.fromkeys(("model_type", "dict_type"), _MAPPING),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), ("expected true or false", "write one of the two")),
    "list_type": ("expected a list", "as in [a, b]"),
    "string_type": ("expected text", "put it in quotes if it is text"),
    "string_pattern_mismatch": ("expected the name of a variable", "letters, digits and _, no digit first"),
}


def read_settings(kind: type[S], value: Value, path: Path) -> Checked[S]:
    """Return the settings of a mapping (of nothing: none of them), without those that do not fit."""
    keys = {} if value is None else value
    faults = KeyFaults()
    bad = set()
    try:
        return kind.model_validate(keys), faults
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if len(faults) < MOST_FAULTS:
                faults.append(_fault(kind, detail, path, keys))
            else:
                faults.more += 1
            bad.add(str(detail["loc"][0]) if detail["loc"] else "")
    if not isinstance(keys, dict):
        return kind(), faults
    return kind.model_validate({key: item for key, item in keys.items() if key.replace("-", "_") not in bad}), faults


def kind_of(value: object) -> str:
    """Return how a message names a value: `a list`, `a mapping`, or the value itself."""
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else quoted(value)


def _fault(kind: type[Settings], detail: ErrorDetails, path: Path, value: Value) -> KeyFault:
    keys = _spelling(value, tuple(str(part) for part in detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return KeyFault((*path, *keys), "unknown key", suggest(keys[-1], _keys_of(kind, keys[:-1])))
    expected, remedy = _expected(detail)
    return KeyFault((*path, *keys), f"{kind_of(detail['input'])}: {expected}", remedy)


def _spelling(value: Value, location: Path) -> Path:
    """Return pydantic's location as the user wrote it, without parts that are no keys of the file (names of types)."""
    keys: list[str] = []
    for part in location:
        if isinstance(value, list):
            if part.isdecimal() and int(part) < len(value):
                keys.append(part)
                value = value[int(part)]
        elif isinstance(value, dict):
            key = next((key for key in value if part in (key, key.replace("-", "_"))), None)
            if key is not None:
                keys.append(key)
                value = value[key]
    return tuple(keys)


def _keys_of(kind: type[Settings], path: Path) -> list[str]:
    """Return the keys that may stand at a path below a class."""
    for key in path:
        field = kind.model_fields.get(key.replace("-", "_"))
        kind = (_settings_in(field.annotation) if field else None) or kind
    return list(kind.model_fields)


def _settings_in(annotation: object) -> type[Settings] | None:
    """Return the class of settings that a type contains, as `dict[str, ModelOptions | None]` contains ModelOptions."""
    parts = get_args(annotation)
    if not parts:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None
    return next((kind for part in parts if (kind := _settings_in(part)) is not None), None)


def _expected(detail: ErrorDetails) -> tuple[str, str]:
    """Return what pydantic's error means to somebody who wrote YAML, and what to do."""
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, UnfitError):
        return str(cause), cause.remedy
    if detail["type"] in _EXPECTED:
        return _EXPECTED[detail["type"]]
    expected = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected a number")
    return expected[:1].lower() + expected[1:], "write it in digits"
