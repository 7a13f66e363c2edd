"""`key=value` words of the command line: `a.b=1` sets, `+a.b=1` and `++a.b=1` add, `~a.b` removes.

A key is found however it is spelled (`max-model-len`, `max_model_len`, `tp`), also one that contains dots. `deploy.…`
and `model_args.…` mean the same in every form of the file; entries of a list are named by index or `serve_id`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flagscale_deploy.config.dialects import MODEL_ROOTS
from flagscale_deploy.config.dialects.model import flag_name
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.source import parse_word, parse_yaml
from flagscale_deploy.errors import Fault, InputError

DEPLOY_PLACES: tuple[Path, ...] = (
    ("experiment", "runner", "deploy"),
    ("experiment", "deploy"),
    ("serve", "deploy"),
    ("deploy",),
)
"""Where `deploy` settings may stand; a later place wins over an earlier one."""

_BODY = (*MODEL_ROOTS, "hostfile")
_HOLD_FLAGS = {*MODEL_ROOTS, "engine_args"}
_WORD = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]+?)(?:=(?P<value>.*))?", re.DOTALL)
_SEGMENT = re.compile(r"""\[\s*(?P<quote>['"]?)(?P<bracket>[^\]]*?)(?P=quote)\s*\]|(?P<plain>(?:\\.|[^.\[\]\\])+)""")


@dataclass(frozen=True)
class Override:
    """One word, taken apart. `value` is undefined where a `~key` has none (`bare`)."""

    key: str
    path: Path
    value: Any
    sign: Literal["", "+", "++", "~"] = ""
    bare: bool = False


class _NotApplicableError(Exception):
    """Why an override does not fit the configuration, and what would."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(problem)


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """The words taken apart; InputError names every one that is not `key=value`."""
    faults, overrides = [], []
    for word in words:
        match = _WORD.fullmatch(word)
        path = _segments(match["key"].strip()) if match else ()
        if match is None or not path or (match["value"] is None and match["sign"] != "~"):
            faults.append(Fault(f"override {word}", "is not key=value", "as in deploy.port=9000; ~key removes a key"))
            continue
        value = _value(match["value"] or "", f"override {match['key']}")
        sign: Any = match["sign"] or ""
        overrides.append(Override(match["key"].strip(), path, value, sign, bare=match["value"] is None))
    if faults:
        raise InputError(faults)
    return overrides


def apply_overrides(tree: dict[str, Any], overrides: Sequence[Override], findings: Findings) -> None:
    """Write the overrides into a composed configuration, in their order."""
    for override in overrides:
        try:
            if override.sign == "~":
                _remove(tree, override)
            else:
                _set(tree, override, findings)
        except _NotApplicableError as error:
            findings.faults.append(Fault(f"override {override.key}", error.problem, error.remedy))


def _segments(key: str) -> Path:
    found = list(_SEGMENT.finditer(key))
    rest = _SEGMENT.sub("", key)
    if rest.strip("."):
        return ()
    return tuple(re.sub(r"\\(.)", r"\1", each["plain"]) if each["plain"] else each["bracket"] for each in found)


def _value(text: str, source: str) -> Any:
    """What stands after `=`: a YAML list, mapping or quoted string, else one word, which may hold any character."""
    if text[:1] in ("[", "{", "'", '"'):
        return parse_yaml(text, source)
    return parse_word(text.strip(), source) if text else ""


def _set(tree: dict[str, Any], override: Override, findings: Findings) -> None:
    for path in _targets(tree, override.path):
        findings.places.overrides[_write(tree, path, override)] = override.key


def _targets(tree: dict[str, Any], path: Path) -> list[Path]:
    """The paths in this tree that a key of the command line means: of `deploy`, the winning place comes first."""
    serve = tree.get("serve")
    for place in DEPLOY_PLACES:
        if path[: len(place)] == place:
            rest = path[len(place) :]
            return [("deploy", *rest)] + [(*each, *rest) for each in DEPLOY_PLACES[:-1] if _exists(tree, each)]
    if path[0] in _BODY and path[0] not in tree and isinstance(serve, dict):
        return [("serve", *path)]
    if path[0] == "serve" and serve is None and path[1:2] and path[1] in _BODY:
        return [path[1:]]
    return [path]


def _exists(tree: dict[str, Any], path: Path) -> bool:
    node: Any = tree
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return isinstance(node, dict)


def _write(tree: dict[str, Any], path: Path, override: Override) -> Path:
    """Set the value; returns the first key that is new, or the whole path where all of it was there."""
    node: Any = tree
    written: Path = ()
    fresh: Path = ()
    while True:
        key, used = _match(node, path, written)
        if key is None:
            if written[-1:] == ("model_args",) and len(path) > 1 and not override.sign:
                raise _NotApplicableError(f"unknown model {path[0]}", f"model_args has: {', '.join(node)}")
            key = path[0]
            fresh = fresh or (*written, key)
        written, path = (*written, str(key)), path[used:]
        if not path:
            node[key] = override.value
            return fresh or written
        if fresh or node[key] is None:
            node[key] = {}
        if not isinstance(node[key], (dict, list)):
            raise _NotApplicableError(
                f"{'.'.join(written)} is one value, not a mapping", "replace it as a whole: KEY={…}"
            )
        node = node[key]


def _remove(tree: dict[str, Any], override: Override) -> None:
    removed = False
    node, key = _find(tree, override.path)
    # A place that is named by its own path, and is there, is meant alone; `deploy` at the top means all of them.
    alone = override.path[0] != "deploy" and key is not None
    for path in [override.path] if alone else _targets(tree, override.path):
        node, key = _find(tree, path)
        if key is not None and (override.bare or node[key] == override.value):
            del node[key]
            removed = True
    if not removed:
        raise _NotApplicableError("there is nothing to remove", "take it off the command line")


def _find(tree: dict[str, Any], path: Path) -> tuple[Any, Any]:
    """The container and the key in it that a path ends at; no key where the path leads nowhere."""
    node: Any = tree
    above: Path = ()
    while isinstance(node, (dict, list)):
        key, used = _match(node, path, above)
        above, path = (*above, str(key)), path[used:]
        if key is None or not path:
            return node, key
        node = node[key]
    return node, None


def _match(node: dict[str, Any] | list[Any], path: Path, above: Path) -> tuple[Any, int]:
    """The key or index that a path starts with (None: a key that is not there yet), and how many segments it takes."""
    if isinstance(node, list):
        return _match_entry(node, path)
    spelled = flag_name if _HOLD_FLAGS.intersection(map(_plain, above)) else _plain
    for used in range(len(path), 0, -1):
        name = ".".join(path[:used])
        same = [key for key in node if key == name] or [key for key in node if spelled(key) == spelled(name)]
        if same:
            return same[0], used
    return None, 1


def _match_entry(entries: list[Any], path: Path) -> tuple[int, int]:
    if path[0].isdecimal() and int(path[0]) < len(entries):
        return int(path[0]), 1
    names = [str(entry.get("serve_id")) if isinstance(entry, dict) else "" for entry in entries]
    for used in range(len(path), 0, -1):
        name = ".".join(path[:used])
        if name in names:
            return names.index(name), used
    known = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    raise _NotApplicableError(f"the list has no entry {path[0]}", f"it has: {known or 'none'}")


def _plain(key: str) -> str:
    return key.replace("-", "_")
