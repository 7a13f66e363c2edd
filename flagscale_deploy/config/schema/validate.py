"""A mapping of the user's against its class in `settings.py`: the settings, and a fault for all that does not fit."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import Settings
from flagscale_deploy.config.schema.values import UnfitError
from flagscale_deploy.support.suggest import suggest

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
    "string_type": ("expected text", "put it in quotes, if it is one"),
    "string_pattern_mismatch": ("expected the name of a variable", "letters, digits and _, no digit first"),
}


def read_settings(kind: type[S], value: Any, path: Path, findings: Findings) -> S:
    """The settings of a mapping (nothing: none of them); faults go to `findings`, and what doesn't fit is left out."""
    value = {} if value is None else value
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        bad = set()
        for each in error.errors(include_url=False):
            _report(kind, each, path, value, findings)
            bad.add(str(each["loc"][0]) if each["loc"] else "")
    if not isinstance(value, dict):
        return kind()
    return kind.model_validate({key: item for key, item in value.items() if key.replace("-", "_") not in bad})


def _report(kind: type[Settings], error: Any, path: Path, value: Any, findings: Findings) -> None:
    keys = _spelling(value, tuple(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        findings.add((*path, *keys), "unknown key", suggest(keys[-1], _known(kind, keys[:-1])))
    else:
        expected, remedy = _expected(error)
        findings.add((*path, *keys), f"{_found(error['input'])}: {expected}", remedy)


def _spelling(value: Any, location: Path) -> Path:
    """Pydantic's location as the user wrote it; parts that are no keys of the file (names of types) are left out."""
    keys: list[str] = []
    for part in location:
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            keys.append(part)
            value = value[int(part)]
            continue
        key = (
            next((each for each in value if part in (each, each.replace("-", "_"))), None)
            if isinstance(value, dict)
            else None
        )
        if key is not None:
            keys.append(key)
            value = value[key]
    return tuple(keys)


def _known(kind: type[Settings], keys: Path) -> list[str]:
    """The keys that may stand at a path below a class."""
    for key in keys:
        field = kind.model_fields.get(key.replace("-", "_"))
        kind = (_settings_in(field.annotation) if field else None) or kind
    return list(kind.model_fields)


def _settings_in(annotation: Any) -> type[Settings] | None:
    """The class of settings that a type contains, as `dict[str, ModelOptions | None]` contains ModelOptions."""
    inside = get_args(annotation)
    if not inside:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None
    return next((found for each in inside if (found := _settings_in(each)) is not None), None)


def _found(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)


def _expected(error: Any) -> tuple[str, str]:
    """What pydantic's error means to somebody who wrote YAML, and what to do."""
    kind, cause = error["type"], error.get("ctx", {}).get("error")
    if isinstance(cause, UnfitError):
        return str(cause), cause.remedy
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    said = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "expected a number")
    return said[:1].lower() + said[1:], "write one such, in digits"
