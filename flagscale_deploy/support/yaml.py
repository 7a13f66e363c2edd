"""The YAML loader behind serve configurations and inventories: parsing, duplicate keys, errors with their place.

What words and tags mean is up to the constructors of a subclass of `Loader`: `config/source.py` has the words of serve
configurations, `inventory/document.py` the tags and positions of inventories.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from flagscale_deploy.errors import Fault, InputError

TAG = "tag:yaml.org,2002:"
"""What YAML's own tags begin with."""


class ContentError(yaml.constructor.ConstructorError):
    """What is YAML and may not stand in this document; `remedy` says what may."""

    def __init__(self, node: yaml.Node, problem: str, remedy: str) -> None:
        super().__init__(None, None, problem, node.start_mark)
        self.remedy = remedy


class Loader(yaml.SafeLoader):
    """A loader of one text. Its constructors add to `faults` what is wrong and does not keep them from going on."""

    deepest: int | None = None
    """How many levels of nesting are allowed; None: as many as Python can follow."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.text, self.source = text, source
        self.faults: list[Fault] = []

    def place(self, mark: yaml.Mark | None) -> str:
        """Return `source:line:column`."""
        return self.source if mark is None else f"{self.source}:{mark.line + 1}:{mark.column + 1}"


def load(kind: type[Loader], text: str, source: str) -> tuple[object, list[Fault]]:
    """Return the value of a text, None if it is empty, and a fault for each duplicate key.

    Raises InputError with `source:line:column` if the text is not one YAML document.
    """
    try:
        loader = kind(text, source)
    except yaml.reader.ReaderError as error:
        where = _place_of(error, text, source)
        raise InputError.at(where, f"this is not YAML: {error.reason}", "take this character out") from error
    try:
        node = _compose(loader)
        if node is None:
            return None, []
        # Before construction: that copies the keys of `<<` into the mappings that merge them.
        loader.faults += _duplicates(node, loader)
        return loader.construct_document(node), loader.faults
    except yaml.MarkedYAMLError as error:
        raise InputError([_fault(error, loader)]) from error
    except RecursionError:
        raise InputError.at(source, "is nested too deeply", "use fewer levels") from None
    finally:
        loader.dispose()


def load_packaged(text: str) -> Any:
    """Return the value of a YAML text that belongs to this package."""
    return yaml.safe_load(text)


def dump(value: object) -> str:
    """Return a value of plain types as YAML, keys in their order."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


_PARTING = frozenset("\t?!")
"""Characters around which libyaml and PyYAML's own parser differ in what they take (150,000 mangled inventories)."""


def _compose(loader: Loader) -> yaml.Node | None:
    """Return the node tree by libyaml, ten times as fast: 1000 hosts in 0.04 s instead of 0.4 s.

    PyYAML's own parser has the last word on errors: they are in its words.
    """
    if yaml.__with_libyaml__ and not _PARTING & set(loader.text):
        try:
            return _Quick(loader).get_single_node()
        except yaml.YAMLError:
            pass
    return loader.get_single_node()


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _Quick(yaml.composer.Composer, CParser, yaml.resolver.Resolver):
        """libyaml's parser below PyYAML's composer: libyaml's own overruns the stack on 100,000 brackets."""

        def __init__(self, loader: Loader) -> None:
            CParser.__init__(self, loader.text)
            yaml.composer.Composer.__init__(self)
            yaml.resolver.Resolver.__init__(self)
            self.yaml_implicit_resolvers = loader.yaml_implicit_resolvers


def _duplicates(root: yaml.Node, loader: Loader) -> Iterator[Fault]:
    """Yield a fault for each key that its mapping has already. Raises ContentError for too deep a nesting."""
    waiting: list[tuple[yaml.Node, int]] = [(root, 0)]
    seen = set[int]()
    while waiting:
        node, depth = waiting.pop()
        if loader.deepest is not None and depth > loader.deepest:
            raise ContentError(node, f"is nested more than {loader.deepest} deep", "use fewer levels")
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _duplicate_keys(node, loader)
            children = [value for _, value in node.value]
        else:
            children = node.value
        waiting += [(child, depth + 1) for child in reversed(children)]


def _duplicate_keys(node: yaml.MappingNode, loader: Loader) -> Iterator[Fault]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        # `<<` may stand twice: each merges another anchor.
        if not isinstance(key, yaml.ScalarNode) or key.tag == f"{TAG}merge":
            continue
        if key.value in lines:
            yield duplicate_key(loader.place(key.start_mark), key.value, lines[key.value])
        lines.setdefault(key.value, key.start_mark.line + 1)


def duplicate_key(where: str, key: str, first_line: int | None = None) -> Fault:
    """Return the fault of a key that stands twice in one mapping."""
    first = "" if first_line is None else f"; the first is on line {first_line}"
    return Fault(where, f"found the key {key!r} twice in one mapping{first}", "keep one of the two")


def _place_of(error: yaml.reader.ReaderError, text: str, source: str) -> str:
    before = text[: error.position].split("\n")
    return f"{source}:{len(before)}:{len(before[-1]) + 1}"


def _fault(error: yaml.MarkedYAMLError, loader: Loader) -> Fault:
    mark = error.problem_mark or error.context_mark
    problem = f"{error.problem}" + (f" ({error.context})" if error.context else "")
    if isinstance(error, ContentError):
        return Fault(loader.place(mark), problem, error.remedy)
    if isinstance(error, yaml.constructor.ConstructorError):
        return Fault(loader.place(mark), problem, "correct the value, or put it in quotes")
    return Fault(loader.place(mark), f"this is not YAML: {problem}", _remedy(loader.text, mark))


def _remedy(text: str, mark: yaml.Mark | None) -> str:
    """Return what to do about a syntax error, by the character that it is at."""
    lines = text.split("\n")
    character = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
    if character == "\t":
        return "indent with spaces, not tabs"
    if character == ":":
        return "check the indentation, and put a value that contains ': ' in quotes"
    return "correct the YAML there, or put the value in quotes"
