"""YAML text into plain values that stay as the user wrote them.

What a bare word means (YAML 1.2's core schema, narrowed to what cannot surprise):

    true false True FALSE …     a boolean             yes no on off            the word itself
    null Null NULL ~ (nothing)  nothing               0,1,2,3  12:30  2026-11-22   the text itself
    7  -3                       a whole number        017  0x1f  1_000  .inf   the text itself
    0.90  1e-5  -.5             a number that keeps its text (`WrittenFloat`)

Keys are always text. FlagScale reads the same files with OmegaConf's loader, which takes YAML 1.1's `yes` for true and
`017` for 15; a flag that is on or off understands `yes` all the same (`plan/vllm.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flagscale_deploy.errors import InputError


class WrittenFloat(float):
    """A number that prints as the user wrote it: `1e-5` stays `1e-5`, and a version `1.10` stays `1.10`."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[WrittenFloat], tuple[str]]:
        return (WrittenFloat, (self.text,))


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner with our own words; a tag that none of the constructors below takes is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own design)
    yaml_constructors = {None: yaml.SafeLoader.construct_undefined}  # noqa: RUF012


_FLOAT = r"-?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?"
_WORDS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    # 18 digits: beyond them a whole number is an identifier, and Python refuses to convert more than 4300.
    ("int", r"0|-?[1-9][0-9]{0,17}", "-0123456789"),
    ("float", _FLOAT, "-.0123456789"),
    ("merge", r"<<", "<"),
)
_YAML = "tag:yaml.org,2002:"
_DEEPEST = 32
_UTF8 = "save it as text in UTF-8"
for _name, _pattern, _first in _WORDS:
    _Loader.add_implicit_resolver(_YAML + _name, re.compile(f"(?:{_pattern})\\Z"), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    return {_key(key): loader.construct_object(value, deep=True) for key, value in node.value}


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.constructor.ConstructorError(None, None, "a key has to be a word", node.start_mark)
    return _text(node)


def _text(node: yaml.ScalarNode) -> str:
    """A scalar's text, if a program can be given it; `"\\ud83d\\ude00"`, as JSON writes 😀, is one character."""
    try:
        text = str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise yaml.constructor.ConstructorError(None, None, "half a character (a surrogate)", node.start_mark) from None
    if "\0" in text:
        raise yaml.constructor.ConstructorError(None, None, "a NUL byte cannot be given to a program", node.start_mark)
    return text


def _string(_loader: _Loader, node: yaml.ScalarNode) -> str:
    return _text(node)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return [loader.construct_object(each, deep=True) for each in node.value]


def _word(loader: _Loader, node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if _tag(loader, text) != node.tag:
        kind = node.tag.removeprefix(_YAML)
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is no {kind}", node.start_mark)
    return _MEANINGS[node.tag.removeprefix(_YAML)](text)


_MEANINGS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text.lower() == "true",
    "null": lambda _text: None,
    "int": int,
    "float": WrittenFloat,
}

# Plain functions and not PyYAML's generators: an anchor that contains itself is then an error and not an endless value.
_Loader.add_constructor(f"{_YAML}map", _mapping)
_Loader.add_constructor(f"{_YAML}seq", _sequence)
_Loader.add_constructor(f"{_YAML}str", _string)
for _name in _MEANINGS:
    _Loader.add_constructor(_YAML + _name, _word)


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. InputError with file, line and column for what is not one YAML document."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError.at(
            str(path), "there is no such file", "correct the path: a relative one starts where you are"
        ) from None
    except IsADirectoryError:
        raise InputError.at(str(path), "is a folder", "name the YAML file in it") from None
    except UnicodeDecodeError as error:
        raise InputError.at(str(path), f"is not text in UTF-8: {error.reason} at byte {error.start}", _UTF8) from error
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read: {error.strerror}", "make it readable for you") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; `source` is its name in errors."""
    with _placed(source):
        return _load(text)


def parse_word(text: str, source: str = "value") -> Any:
    """The value of one bare word by the rules above, whatever characters it has."""
    loader = _Loader("")
    try:
        with _placed(source):
            tag = _tag(loader, text)
            return text if tag == f"{_YAML}merge" else loader.construct_object(yaml.ScalarNode(tag, text))
    finally:
        loader.dispose()


@contextmanager
def _placed(source: str) -> Iterator[None]:
    """PyYAML's errors as ours, with `source:line:column`."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        said = " ".join(part for part in (error.problem, error.context) if part)
        raise InputError.at(place, said, _remedy(error)) from error
    except yaml.YAMLError as error:
        raise InputError.at(source, str(error).splitlines()[0], _UTF8) from error
    except RecursionError:
        raise InputError.at(source, "is nested too deeply", "lift it up: nothing of ours is that deep") from None


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _tag(loader: _Loader, text: str) -> str:
    """The tag of a bare word."""
    return str(loader.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


def _check(node: yaml.Node, seen: set[int], depth: int = 0) -> None:
    """Refuse duplicate keys, and nesting that later recursions could not follow."""
    if depth > _DEEPEST:
        raise yaml.constructor.ConstructorError(None, None, f"is nested more than {_DEEPEST} deep", node.start_mark)
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node)
        for _, value in node.value:
            _check(value, seen, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check(each, seen, depth + 1)


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    first: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_YAML}merge":
            continue
        earlier = first.setdefault(key.value, key)
        if earlier is not key:
            said = f"the key {key.value!r} is here a second time; the first is on line {earlier.start_mark.line + 1}"
            raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)


def _remedy(error: yaml.MarkedYAMLError) -> str:
    said = error.problem or ""
    if "second time" in said:
        return "keep one of them"
    if "mapping values are not allowed" in said:
        return "check the indentation, and put a value that contains ': ' in quotes"
    if r"\t" in said:
        return "indent with spaces, not tabs"
    if "nested" in said:
        return "lift it up: nothing of ours is that deep"
    return "correct the YAML there, or put the value in quotes"
