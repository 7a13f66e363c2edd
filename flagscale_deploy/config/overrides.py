"""`key=value` words of the command line: `a.b=1` sets, `+a.b=1` and `++a.b=1` add, `~a.b` removes.

A key is found however it is spelled (`max-model-len`, `max_model_len`, `tp`), also one that contains dots. `deploy.…`
and `model_args.…` mean the same in every form of the file; entries of a list are named by index or `serve_id`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from flagscale_deploy.config.dialects.forms import MODEL_ROOTS
from flagscale_deploy.config.schema.places import Path, Places
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.config.source import parse_word, parse_yaml
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.support.learn_secrets import learn_text, learn_value, quoting_no_secret
from flagscale_deploy.support.value import Tree, Value

DEPLOY_PLACES: tuple[Path, ...] = (
    ("experiment", "runner", "deploy"),
    ("experiment", "deploy"),
    ("serve", "deploy"),
    ("deploy",),
)
"""Where `deploy` settings may stand; a later place wins over an earlier one."""
LONGEST_PATH = 32

_BODY = (*MODEL_ROOTS, "hostfile")
_HOLD_FLAGS = {*MODEL_ROOTS, "engine_args"}
_WORD = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]+?)(?:=(?P<value>.*))?", re.DOTALL)
_SEGMENT = re.compile(r"""\[(?P<bracket>[^\[\]]*)\]|(?P<plain>(?:\\.|[^.\[\]\\])+)""")


@dataclass(frozen=True)
class Override:
    """One word of the command line. `value` is undefined where a `~key` has none (`bare`)."""

    key: str
    path: Path
    value: Value
    sign: Literal["", "+", "++", "~"] = ""
    bare: bool = False


@dataclass
class _Level:
    """A list or mapping that is being read: the first colon of its entry, and whether YAML splits the entry at one."""

    bracket: str
    colon: int = 0
    split: bool = False


class _NotApplicableError(Exception):
    """An override does not fit the configuration; `remedy` says what would."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(problem)


@quoting_no_secret
def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Return the words as overrides. Raises InputError with every one that is not `key=value`."""
    faults, overrides = [], []
    for word in words:
        learn_text(word)
        match = _WORD.fullmatch(word)
        path = _segments(match["key"].strip()) if match else ()
        if match is None or not path or len(path) > LONGEST_PATH or (match["value"] is None and match["sign"] != "~"):
            faults.append(Fault(f"override {word}", "is not key=value", "as in deploy.port=9000; ~key removes a key"))
            continue
        value = _value(match["value"] or "", f"override {match['key']}")
        learn_value(value, *path)
        sign = cast(Literal["", "+", "++", "~"], match["sign"] or "")
        overrides.append(Override(match["key"].strip(), path, value, sign, bare=match["value"] is None))
    if faults:
        raise InputError(faults)
    return overrides


def apply_overrides(tree: Tree, overrides: Sequence[Override], places: Places) -> list[Fault]:
    """Write the overrides into a composed configuration, in their order; return those that do not fit."""
    faults = []
    for override in overrides:
        try:
            if override.sign == "~":
                _remove(tree, override)
            else:
                for path in _targets(tree, override.path):
                    places.overrides[_write(tree, path, override)] = override.key
        except _NotApplicableError as error:
            faults.append(Fault(f"override {override.key}", error.problem, error.remedy))
    return faults


def _segments(key: str) -> Path:
    segments = list(_SEGMENT.finditer(key))
    rest = _SEGMENT.sub("", key)
    if rest.strip("."):
        return ()
    return tuple(
        re.sub(r"\\(.)", r"\1", segment["plain"]) if segment["plain"] else _unquoted(segment["bracket"].strip())
        for segment in segments
    )


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _value(text: str, source: str) -> Value:
    """Return what stands after `=`: a list, mapping or quoted string, else one word of any characters."""
    if text[:1] in ("[", "{", "'", '"'):
        return parse_yaml(_spaced(text), source)
    return parse_word(text.strip(), source) if text else ""


def _spaced(text: str) -> str:
    """Return Hydra's `{image:8,video:0}` with a blank after each key, as YAML needs it.

    The first colon of an entry ends its key; an entry that YAML splits at a later one (`{a:b: 1}`) stays YAML's.
    """
    cuts: list[int] = []
    levels: list[_Level] = []
    quote = before = ""
    for at, char in enumerate(text):
        level = levels[-1] if levels else None
        if quote:
            quote = "" if char == quote and (quote == "'" or before != "\\") else quote
        elif char in "'\"" and before in ("", *"{[,:"):
            quote = char
        elif char in "{[":
            levels.append(_Level(char))
        elif level and char in "}],":
            cuts += [level.colon] if level.bracket == "{" and level.colon and not level.split else []
            levels[-1:] = [_Level(level.bracket)] if char == "," else []
        elif level and char == ":":
            level.colon = level.colon or at
            level.split = level.split or text[at + 1 : at + 2] in ("", *" \t\n,[]{}")
        before = char if char.strip() else before
    for at in sorted(cuts, reverse=True):
        text = f"{text[: at + 1]} {text[at + 1 :]}"
    return text


def _targets(tree: Tree, path: Path) -> list[Path]:
    """Return the paths in this tree that a key of the command line means; of `deploy`, the winning place first."""
    serve = tree.get("serve")
    for place in DEPLOY_PLACES:
        if path[: len(place)] == place:
            rest = path[len(place) :]
            others = [other for other in DEPLOY_PLACES[:-1] if _exists(tree, other)]
            return [("deploy", *rest)] + [(*other, *rest) for other in others]
    if path[0] in _BODY and path[0] not in tree and isinstance(serve, dict):
        return [("serve", *path)]
    if path[0] == "serve" and serve is None and path[1:2] and path[1] in _BODY:
        return [path[1:]]
    return [path]


def _exists(tree: Tree, path: Path) -> bool:
    node: Value = tree
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return isinstance(node, dict)


def _write(tree: Tree, path: Path, override: Override) -> Path:
    """Set the value; return the path to the first key that is new, or the whole path if all of it was there."""
    node: Tree | list[Value] = tree
    written: Path = ()
    fresh: Path = ()
    while True:
        key, used = _match(node, path, written)
        if key is None:
            if written[-1:] == ("model_args",) and len(path) > 1 and not override.sign:
                raise _NotApplicableError(f"unknown model {path[0]}", f"model_args has: {', '.join(map(str, node))}")
            key = path[0]
            fresh = fresh or (*written, key)
        written, path = (*written, str(key)), path[used:]
        if not path:
            _put(node, key, override.value)
            return fresh or written
        if fresh or _get(node, key) is None:
            _put(node, key, {})
        child = _get(node, key)
        if not isinstance(child, (dict, list)):
            raise _NotApplicableError(
                f"{'.'.join(written)} is one value, not a mapping", "replace it as a whole: KEY={…}"
            )
        node = child


def _remove(tree: Tree, override: Override) -> None:
    removed = False
    # A place that is named by its own path, and is there, is meant alone; `deploy` at the top means all of them.
    alone = override.path[0] != "deploy" and _find(tree, override.path) is not None
    for path in [override.path] if alone else _targets(tree, override.path):
        place = _find(tree, path)
        if place is not None and (override.bare or _get(*place) == override.value):
            node, key = place
            if isinstance(node, dict):
                del node[str(key)]
            else:
                del node[int(key)]
            removed = True
    if not removed:
        raise _NotApplicableError("there is nothing to remove", "remove it from the command line")


def _find(tree: Tree, path: Path) -> tuple[Tree | list[Value], str | int] | None:
    """Return the container and the key in it that a path ends at; None where the path leads nowhere."""
    node: Value = tree
    above: Path = ()
    while isinstance(node, (dict, list)):
        key, used = _match(node, path, above)
        if key is None:
            return None
        above, path = (*above, str(key)), path[used:]
        if not path:
            return node, key
        node = _get(node, key)
    return None


def _get(node: Tree | list[Value], key: str | int) -> Value:
    return node.get(str(key)) if isinstance(node, dict) else node[int(key)]


def _put(node: Tree | list[Value], key: str | int, value: Value) -> None:
    if isinstance(node, dict):
        node[str(key)] = value
    else:
        node[int(key)] = value


def _match(node: Tree | list[Value], path: Path, above: Path) -> tuple[str | int | None, int]:
    """Return the key or index that a path starts with (None: a key that is not there), and its number of segments."""
    if isinstance(node, list):
        return _match_entry(node, path)
    spelled = flag_name if _HOLD_FLAGS.intersection(map(_plain, above)) else _plain
    for used in range(len(path), 0, -1):
        name = ".".join(path[:used])
        same = [key for key in node if key == name] or [key for key in node if spelled(key) == spelled(name)]
        if same:
            return same[0], used
    return None, 1


def _match_entry(entries: list[Value], path: Path) -> tuple[int, int]:
    if path[0].isdecimal() and int(path[0]) < len(entries):
        return int(path[0]), 1
    names = [str(entry.get("serve_id")) if isinstance(entry, dict) else "" for entry in entries]
    for used in range(len(path), 0, -1):
        name = ".".join(path[:used])
        if name in names:
            return names.index(name), used
    listed = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    raise _NotApplicableError(f"the list has no entry {path[0]}", f"it has: {listed or 'none'}")


def _plain(key: str) -> str:
    return key.replace("-", "_")
