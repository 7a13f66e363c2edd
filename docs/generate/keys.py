"""The keys of inventory and serve YAML, from the models that validate them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from docs.generate.markdown import table
from flagscale_deploy.config.experiment import Experiment
from flagscale_deploy.config.nodes import Node
from flagscale_deploy.config.schema.base import Settings
from flagscale_deploy.config.schema.settings import Deploy
from flagscale_deploy.inventory.keys import HostKeys

ELSEWHERE = {("deploy", "instance"), ("experiment", "deploy"), ("experiment.runner", "deploy")}
"""Keys that their class does not read: `instance` belongs to the oldest form; all places of `deploy` are one."""
BESIDE = {
    "the top": ("hydra",),
    "beside `deploy`": ("logging", "use_native_serve"),
    "an entry of the list form": ("profile",),
}
"""Keys without effect that no class holds."""
Key = tuple[str, str, str]
"""(path of the mapping, key, description); keys without effect have no description."""


def of_host() -> str:
    """Return a row for each key of a host."""
    rows = [
        (f"`{name}`", field.title or "", *_description(field.description or "").values())
        for name, field in HostKeys.model_fields.items()
    ]
    return table(("key", "value", "is", "if absent"), rows)


def of_deploy() -> str:
    """Return a row for each key of `deploy`."""
    return _table(keys_of(Deploy, "deploy"))


def of_experiment() -> str:
    """Return a row for each key of `experiment`."""
    return _table(keys_of(Experiment, "experiment"))


def of_node() -> str:
    """Return a row for each key of a node."""
    rows = [(f"`{name}`", *_description(field.description or "").values()) for name, field in Node.model_fields.items()]
    return table(("key of a node", "is", "default"), rows)


def ignored() -> str:
    """Return a row for each mapping that has keys without effect."""
    rows: dict[str, list[str]] = {place: [*names] for place, names in BESIDE.items()}
    for path, name, description in (*keys_of(Deploy, "deploy"), *keys_of(Experiment, "experiment")):
        if not description and (path, name) not in ELSEWHERE:
            rows.setdefault(f"`{path}`", []).append(name)
    cells = [(place, ", ".join(f"`{name}`" for name in sorted(names))) for place, names in rows.items()]
    return table(("at", "keys"), cells)


def keys_of(kind: type[Settings], path: str) -> Iterator[Key]:
    """Yield every key below a path; of a mapping that is not a value by itself only the keys in it."""
    for name, field in kind.model_fields.items():
        inner, mapped = settings_of(field.annotation)
        if inner is None or _is_value(field.metadata, field.annotation):
            yield path, name, field.description or ""
        if inner is not None:
            placeholder = "<model>" if name == "models" else "<host>"
            yield from keys_of(inner, f"{path}.{name}" + (f".{placeholder}" if mapped else ""))


def settings_of(annotation: Any) -> tuple[type[Settings] | None, bool]:
    """Return the settings class in an annotation, and whether it stands for each value of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation, False
    for part in get_args(annotation):
        settings, mapped = settings_of(part)
        if settings is not None:
            return settings, mapped or get_origin(annotation) is dict
    return None, False


def _is_value(metadata: list[Any], annotation: Any) -> bool:
    """Return whether a word may stand in the place of a mapping: a validator makes a mapping of it."""
    return bool(metadata) or any(hasattr(part, "__metadata__") for part in get_args(annotation))


def _table(keys: Iterator[Key]) -> str:
    rows = [
        (f"`{path}.{name}`", *_description(description).values())
        for path, name, description in keys
        if description and (path, name) not in ELSEWHERE
    ]
    return table(("key", "is", "default"), rows)


def _description(text: str) -> dict[str, str]:
    meaning, _, default = text.partition(" Default: ")
    return {"is": meaning.rstrip("."), "default": default}
