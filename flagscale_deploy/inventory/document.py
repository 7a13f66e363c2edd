"""A YAML document that remembers where its keys stand and how its scalars were written.

An error can then name the line, and an environment variable can get `010` or `on` as the user wrote it and not the
8 or True that YAML 1.1 makes of them. Ansible's tags `!vault` and `!unsafe` are kept as types.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

import yaml

from flagscale_deploy.errors import MOST_FAULTS, Fault, InputError
from flagscale_deploy.support.learn_secrets import learn_value
from flagscale_deploy.support.yaml import TAG, ContentError, Loader, duplicate_key, load, refuse_bombs


class Section(dict[object, object]):
    """A mapping. `lines` has the line of each key, `written` the source text of each plain scalar value."""

    def __init__(self, items: Iterable[tuple[object, object]] = (), line: int = 0) -> None:
        super().__init__(items)
        self.line = line
        self.lines: dict[object, int] = {}
        self.written: dict[object, str] = {}


class Items(list[object]):
    """A sequence. `lines` has the line of each item."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


class Encrypted(str):
    """The cipher text of an Ansible `!vault` value."""


class Unsafe(str):
    """An Ansible `!unsafe` value: text that is never a template."""


class Confidential(str):
    """A text made from a secret variable of the operator's environment."""


def parse_yaml(text: str, source: str) -> tuple[object, list[Fault]]:
    """Return the document's value, and a fault for each key that stands twice in one mapping.

    Raises InputError with `source:line:column` where the text is not YAML.
    """
    return load(_Loader, text, source)


def parse_json(text: str, source: str) -> tuple[object, list[Fault]]:
    """Return what `parse_yaml` does, for JSON: keys have no lines, and a tab is only white space."""
    faults: list[Fault] = []

    def section(pairs: list[tuple[str, object]]) -> Section:
        counts = Counter(key for key, _ in pairs)
        twice = sorted(key for key in counts if counts[key] > 1)
        faults.extend(duplicate_key(source, key) for key in twice[:MOST_FAULTS])
        return Section(pairs)

    try:
        value = json.loads(text, object_pairs_hook=section, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"{source}:{error.lineno}:{error.colno}"
        raise InputError.at(where, f"this is not JSON: {error.msg}", "correct it there") from error
    except ValueError as error:
        raise InputError.at(source, f"this is not JSON: {error}", "write it as text, in quotes") from error
    except RecursionError:
        raise InputError.at(source, "is nested too deeply", "use fewer levels") from None
    refuse_bombs(value, source)
    learn_value(value)
    return value, faults


def _refuse_constant(name: str) -> object:
    raise ValueError(f"it has no {name}")


class _Loader(Loader):
    """A loader with YAML 1.1's words, as Ansible's is."""


def _mapping(loader: _Loader, node: yaml.Node) -> Iterator[Section]:
    section = Section(line=node.start_mark.line + 1)
    yield section
    if not isinstance(node, yaml.MappingNode):
        raise ContentError(node, "is not a mapping", "take its tag out")
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if isinstance(key, (dict, list, set)):
            # Often an unquoted template: `key: {{ name }}` is a mapping in a mapping.
            problem, remedy = "found a list or a mapping as a key, expected a name", 'put "{{ … }}" in quotes'
            loader.faults.append(Fault(loader.place(key_node.start_mark), problem, remedy))
            continue
        section[key] = loader.construct_object(value_node)
        section.lines[key] = line
        if isinstance(value_node, yaml.ScalarNode):
            section.written[key] = value_node.value


def _sequence(loader: _Loader, node: yaml.Node) -> Iterator[Items]:
    items = Items()
    yield items
    if not isinstance(node, yaml.SequenceNode):
        raise ContentError(node, "is not a list", "take its tag out")
    for item in node.value:
        items.append(loader.construct_object(item))
        items.lines.append(item.start_mark.line + 1)


def _encrypted(loader: _Loader, node: yaml.ScalarNode) -> Encrypted:
    return Encrypted(loader.construct_scalar(node))


def _unsafe(loader: _Loader, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return Unsafe(loader.construct_scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return _marked_unsafe(loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.MappingNode), "the only other kind of node"
    return _marked_unsafe(loader.construct_mapping(node, deep=True))


def _marked_unsafe(value: object) -> object:
    if isinstance(value, dict):
        return Section((key, _marked_unsafe(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_marked_unsafe(item) for item in value]
    return Unsafe(value) if isinstance(value, str) else value


_Loader.add_constructor(f"{TAG}map", _mapping)
_Loader.add_constructor(f"{TAG}seq", _sequence)
_Loader.add_constructor("!vault", _encrypted)
_Loader.add_constructor("!vault-encrypted", _encrypted)
_Loader.add_constructor("!unsafe", _unsafe)
