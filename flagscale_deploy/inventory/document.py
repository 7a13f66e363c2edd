"""A YAML document that remembers where its keys stand and how its scalars were written.

An error can then name the line, and an environment variable can get `010` or `on` as the user wrote it and not the
8 or True that YAML 1.1 makes of them. Ansible's tags `!vault` and `!unsafe` are kept as types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from flagscale_deploy.errors import Fault, InputError


class Section(dict[Any, Any]):
    """A mapping. `lines` has the line of each key, `written` the source text of each plain scalar value."""

    def __init__(self, values: Mapping[Any, Any] | None = None, line: int = 0) -> None:
        super().__init__(values or {})
        self.line = line
        self.lines: dict[Any, int] = {}
        self.written: dict[Any, str] = {}


class Items(list[Any]):
    """A sequence. `lines` has the line of each item."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


class Encrypted(str):
    """The cipher text of an Ansible `!vault` value."""


class Unsafe(str):
    """An Ansible `!unsafe` value: text that is never a template."""


def parse_yaml(text: str, source: str) -> tuple[Any, list[Fault]]:
    """The document's value, and a fault for each key that stands twice in one mapping.

    Raises InputError with `source:line:column` where the text is not YAML.
    """
    loader = _Loader(text)
    loader.source = source
    try:
        node = _compose(text, loader)
        if node is None:
            return None, []
        # Before construction: that copies the keys of `<<` into the mappings that merge them.
        loader.faults += _duplicates(node, source)
        return loader.construct_document(node), loader.faults
    except yaml.YAMLError as error:
        raise InputError([_syntax_fault(error, source)]) from error
    except RecursionError:
        raise InputError.at(source, "is nested too deeply", "an inventory is a few levels deep") from None
    finally:
        loader.dispose()


def parse_json(text: str, source: str) -> tuple[Any, list[Fault]]:
    """As `parse_yaml`, for JSON: keys have no lines, and a tab is only white space."""
    faults: list[Fault] = []

    def section(pairs: list[tuple[str, Any]]) -> Section:
        keys = [key for key, _ in pairs]
        faults.extend(_duplicate(source, key, "") for key in sorted({key for key in keys if keys.count(key) > 1}))
        return Section(dict(pairs))

    try:
        return json.loads(text, object_pairs_hook=section), faults
    except json.JSONDecodeError as error:
        where = f"{source}:{error.lineno}:{error.colno}"
        raise InputError.at(where, f"this is not JSON: {error.msg}") from error


_PARTING = frozenset("\t?!")
"""Characters around which libyaml and PyYAML's own parser differ in what they take (150,000 mangled inventories)."""


def _compose(text: str, loader: _Loader) -> yaml.Node | None:
    """The node tree by libyaml, as Ansible reads inventories: 1000 hosts in 0.04 s instead of 0.4 s.

    Errors are told in the words of PyYAML's own parser, which has the last say.
    """
    if yaml.__with_libyaml__ and not _PARTING & set(text):
        try:
            return _Quick(text).get_single_node()
        except yaml.YAMLError:
            pass
    return loader.get_single_node()


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _Quick(yaml.composer.Composer, CParser, yaml.resolver.Resolver):
        """libyaml's parser below PyYAML's composer: libyaml's own overruns the stack on 100,000 brackets."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            yaml.composer.Composer.__init__(self)
            yaml.resolver.Resolver.__init__(self)


class _Loader(yaml.SafeLoader):
    source = ""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[Fault] = []


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[Section]:
    section = Section(line=node.start_mark.line + 1)
    yield section
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if isinstance(key, (dict, list, set)):
            # Often an unquoted template: `key: {{ name }}` is a mapping in a mapping.
            problem = "found a list or a mapping as a key, expected a name"
            loader.faults.append(Fault(f"{loader.source}:{line}", problem, 'put "{{ … }}" in quotes'))
            continue
        section[key] = loader.construct_object(value_node)
        section.lines[key] = line
        if isinstance(value_node, yaml.ScalarNode):
            section.written[key] = value_node.value


def _duplicates(root: yaml.Node, source: str) -> Iterator[Fault]:
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _duplicate_keys(node, source)
            waiting += [value for _, value in reversed(node.value)]
        else:
            waiting += reversed(node.value)


def _duplicate_keys(node: yaml.MappingNode, source: str) -> Iterator[Fault]:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        # `<<` may stand twice: each merges another anchor.
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line, word = key.start_mark.line + 1, (key.tag, key.value)
        if word in first:
            yield _duplicate(f"{source}:{line}", key.value, f"; the first is on line {first[word]}")
        first.setdefault(word, line)


def _duplicate(where: str, key: str, first: str) -> Fault:
    return Fault(where, f"found the key {key!r} twice in one mapping{first}", "keep one of the two")


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> Iterator[Items]:
    items = Items()
    yield items
    for each in node.value:
        items.append(loader.construct_object(each))
        items.lines.append(each.start_mark.line + 1)


def _encrypted(loader: _Loader, node: yaml.ScalarNode) -> Encrypted:
    return Encrypted(loader.construct_scalar(node))


def _unsafe(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return Unsafe(loader.construct_scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return _marked_unsafe(loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.MappingNode), "the only other kind of node"
    return _marked_unsafe(loader.construct_mapping(node, deep=True))


def _marked_unsafe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Section({key: _marked_unsafe(each) for key, each in value.items()})
    if isinstance(value, list):
        return [_marked_unsafe(each) for each in value]
    return Unsafe(value) if isinstance(value, str) else value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)
_Loader.add_constructor("!vault", _encrypted)
_Loader.add_constructor("!vault-encrypted", _encrypted)
_Loader.add_constructor("!unsafe", _unsafe)


def _syntax_fault(error: yaml.YAMLError, source: str) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark is not None else source
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    remedy = "indent with spaces, YAML takes no tabs" if "\\t" in str(said) else ""
    return Fault(where, f"this is not YAML: {said}" + (f" ({context})" if context else ""), remedy)
