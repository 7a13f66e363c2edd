"""Read YAML text into plain values that keep the user's spelling.

What a bare word means (YAML 1.2's core schema, narrowed to what cannot surprise):

    true false True FALSE …     a boolean             yes no on off            the word itself
    null Null NULL ~ (nothing)  nothing               0,1,2,3  12:30  2026-11-22   the text itself
    7  -3                       a whole number        017  0x1f  1_000  .inf   the text itself
    0.90  1e-5  -.5             a number that keeps its text (`WrittenFloat`)

Keys are always text. FlagScale reads the same files with OmegaConf's loader, which takes YAML 1.1's `yes` for true and
`017` for 15; a flag that is on or off understands `yes` all the same (`plan/vllm.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import yaml

from flagscale_deploy.config.schema.places import Document
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Tree, Value
from flagscale_deploy.support.yaml import TAG, ContentError, Loader, load_with_nodes, whole_characters


class WrittenFloat(float):
    """A number that prints as the user wrote it: `1e-5` stays `1e-5`, and a version `1.10` stays `1.10`."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        """Return the number that a text is."""
        number = super().__new__(cls, text)
        if not math.isfinite(number):
            raise OverflowError(text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[WrittenFloat], tuple[str]]:
        return (WrittenFloat, (self.text,))


class _Loader(Loader):
    """A loader with the words above; a tag that none of the constructors below takes is an error."""

    deepest = 32
    most = 50_000
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
for _name, _pattern, _first in _WORDS:
    _Loader.add_implicit_resolver(TAG + _name, re.compile(f"(?:{_pattern})\\Z"), list(_first))


def read_yaml(path: Path) -> Document:
    """Return a YAML file. Raises InputError with file, line and column if it is not one document."""
    return parse_document(read_text(path), str(path))


def parse_document(text: str, source: str) -> Document:
    """Return a YAML text with the places of its keys; `source` is its name in errors.

    Raises InputError with every duplicate key, or with what keeps the text from being read.
    """
    value, node, faults = load_with_nodes(_Loader, text, source)
    if faults:
        raise InputError(faults)
    return Document(source, cast(Value, value), partial(_positions, node, {}))


_Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


def _positions(root: yaml.Node | None, keys: dict[int, _Pairs], path: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return line and column of the root, and of the keys of a path as far as they are there, however spelled.

    `keys` are the pairs of each mapping that was asked for, so that thousands of faults search none from its beginning.
    """
    nodes = [] if root is None else [root]
    value = root
    for key in path:
        if isinstance(value, yaml.SequenceNode) and key.isdecimal() and int(key) < len(value.value):
            nodes.append(value := value.value[int(key)])
            continue
        if not isinstance(value, yaml.MappingNode):
            break
        if id(value) not in keys:
            keys[id(value)] = _pairs(value)
        pair = keys[id(value)].get(key) or keys[id(value)].get(f"{_OF_ANY_SPELLING}{flag_name(key)}")
        if pair is None:
            break
        name, value = pair
        nodes.append(name)
    return [(node.start_mark.line + 1, node.start_mark.column + 1) for node in nodes] or [(1, 1)]


_OF_ANY_SPELLING = "\0"
"""What begins the keys in one spelling; no key has it."""


def _pairs(mapping: yaml.MappingNode) -> _Pairs:
    """Return the last pair of each key, and of each key in the spelling of flags."""
    pairs = {f"{_OF_ANY_SPELLING}{flag_name(str(pair[0].value))}": pair for pair in mapping.value}
    return {**pairs, **{pair[0].value: pair for pair in mapping.value if isinstance(pair[0], yaml.ScalarNode)}}


def parse_yaml(text: str, source: str) -> Value:
    """Return the value of a YAML text. Raises InputError as `parse_document` does."""
    return parse_document(text, source).value


def parse_word(text: str, source: str = "value") -> Value:
    """Return the value of one bare word by the rules above, whatever characters it has."""
    loader = _Loader("", source)
    try:
        tag = _tag(loader, text)
        if tag == f"{TAG}merge":
            return text
        return cast(Value, loader.construct_object(yaml.ScalarNode(tag, text)))
    except ContentError as error:
        raise InputError.at(source, str(error.problem), error.remedy) from error
    finally:
        loader.dispose()


_FOLDED = re.compile("[\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes each text which the words above would not leave a text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, _data: object) -> bool:
        """Write a value again wherever it stands."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Quote a text with line ends that YAML would fold, so that they are escaped."""
        style = '"' if _FOLDED.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_document(tree: Tree) -> str:
    """Return a configuration as YAML that `parse_document` reads back as it was, numbers as they were written."""
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, object]:
    loader.flatten_mapping(node)
    return {_key(key): loader.construct_object(value, deep=True) for key, value in node.value}


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ContentError(node, "a key must be a single word", "put {{ … }} in quotes; a key is one word")
    return whole_characters(node)


def _string(_loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(node.value)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[object]:
    return [loader.construct_object(item, deep=True) for item in node.value]


def _word(loader: _Loader, node: yaml.ScalarNode) -> Value:
    text, kind = str(node.value), node.tag.removeprefix(TAG)
    if _tag(loader, text) != node.tag:
        raise ContentError(node, f"{quoted(text)} is not of type {kind}", "correct the value, or take the tag out")
    return _MEANINGS[kind](text)


def _tag(loader: _Loader, text: str) -> str:
    """Return the tag of a bare word."""
    return str(loader.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


_MEANINGS: dict[str, Callable[[str], Value]] = {
    "bool": lambda text: text.lower() == "true",
    "null": lambda _text: None,
    "int": int,
    "float": WrittenFloat,
}

# Plain functions and not PyYAML's generators: an anchor that contains itself is then an error and not an endless value.
_Loader.add_constructor(f"{TAG}map", _mapping)
_Loader.add_constructor(f"{TAG}seq", _sequence)
_Loader.add_constructor(f"{TAG}str", _string)
for _name in _MEANINGS:
    _Loader.add_constructor(TAG + _name, _word)
_Dumper.add_representer(WrittenFloat, lambda dumper, number: dumper.represent_scalar(f"{TAG}float", number.text))
