"""The YAML loader behind serve configurations and inventories: parsing, duplicate keys, errors with their place.

What words and tags mean is up to the constructors of a subclass of `Loader`: `config/source.py` has the words of serve
configurations, `inventory/document.py` the tags and positions of inventories.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

from flagscale_deploy.errors import MOST_FAULTS, Fault, InputError
from flagscale_deploy.support.learn_secrets import learn_value
from flagscale_deploy.support.units import MIB

TAG = "tag:yaml.org,2002:"
"""What YAML's own tags begin with."""

DEEPEST = 100
MOST_NODES = 250_000
"""Keys and values of a document: 30,000 hosts with three variables each."""
MOST_EXPANDED = 2 * MOST_NODES
"""The same with each alias replaced by what it stands for."""
MOST_CHARACTERS = 8 * MIB
"""Characters of texts and keys with each alias replaced: twice what a file may have."""
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
LONGEST_NUMBER = 400
"""Python converts no more than 4,300 digits, and numbers in base 60 grow with the square of their length."""


class ContentError(yaml.constructor.ConstructorError):
    """What is YAML and may not stand in this document; `remedy` says what may."""

    def __init__(self, node: yaml.Node | yaml.Event, problem: str, remedy: str) -> None:
        mark: yaml.Mark | None = node.start_mark  # type: ignore[assignment]  # libyaml's has the same fields
        super().__init__(None, None, problem, mark)
        self.remedy = remedy


class _Bounded(yaml.composer.Composer):
    """A composer that refuses documents that are too large or too deep, before their values are made."""

    deepest = DEEPEST
    most = MOST_NODES
    nodes = aliases = 0
    depth = -1

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node. Raises ContentError where it is one too many."""
        event = self.peek_event()  # type: ignore[attr-defined]  # of the parser beside it
        self.aliases += isinstance(event, yaml.AliasEvent)
        self.nodes += 1
        self.depth += 1
        if self.depth > self.deepest:
            raise ContentError(event, f"is nested more than {self.deepest} deep", "use fewer levels")
        if self.nodes > self.most:
            raise ContentError(event, f"has more than {self.most:,} keys and values", "use ranges, or split it")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Loader(_Bounded, yaml.SafeLoader):
    """A loader of one text. Its constructors add to `faults` what is wrong and does not keep them from going on."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.text, self.source = text, source
        self.faults: list[Fault] = []

    def place(self, mark: yaml.Mark | None) -> str:
        """Return `source:line:column`."""
        return self.source if mark is None else f"{self.source}:{mark.line + 1}:{mark.column + 1}"

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a node's value. Raises ContentError for each that PyYAML cannot make, whatever it raises itself."""
        kind = node.tag.removeprefix(TAG)
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > LONGEST_NUMBER and kind in ("int", "float", "timestamp"):
                problem = f"a number of {len(node.value):,} characters"
                raise ContentError(node, problem, "put it in quotes if it is text")
            node.value = whole_characters(node)
        try:
            return super().construct_object(node, deep)
        except _UNFIT as error:
            raise ContentError(node, f"is not a valid {kind}", "correct the value, or put it in quotes") from error


def whole_characters(node: yaml.ScalarNode) -> str:
    r"""Return a scalar's text, if a program can be given it; `"\ud83d\ude00"`, JSON's 😀, is one character."""
    text = str(node.value)
    if "\0" in text:
        raise ContentError(node, "a NUL byte cannot be given to a program", "take it out")
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ContentError(node, "half a character (a surrogate)", "write the whole character") from None


def load(kind: type[Loader], text: str, source: str) -> tuple[object, list[Fault]]:
    """Return the value of a text, None if it is empty, and a fault for each duplicate key.

    Raises InputError with `source:line:column` if the text is not one YAML document.
    """
    value, _, faults = load_with_nodes(kind, text, source)
    return value, faults


def load_with_nodes(kind: type[Loader], text: str, source: str) -> tuple[object, yaml.Node | None, list[Fault]]:
    """Do what `load` does; return the root node as well, with the positions of all keys, merged ones included."""
    try:
        loader = kind(text, source)
    except yaml.reader.ReaderError as error:
        where = _place_of(error, text, source)
        raise InputError.at(where, f"this is not YAML: {error.reason}", "take this character out") from error
    try:
        node = _compose(loader)
        if node is None:
            return None, None, []
        # Before construction: that copies the keys of `<<` into the mappings that merge them.
        if loader.aliases:
            _refuse_large_aliases(node, loader.deepest)
        loader.faults += islice(_duplicates(node, loader), MOST_FAULTS)
        value = loader.construct_document(node)
        learn_value(value)
        return value, node, loader.faults
    except yaml.MarkedYAMLError as error:
        raise InputError([_fault(error, loader)]) from error
    except RecursionError:
        raise InputError.at(source, "is nested too deeply", "use fewer levels") from None
    except _UNFIT as error:  # of a value that PyYAML makes at the end
        raise InputError.at(
            source, "holds a value that is not of its type", "correct it, or take its tag out"
        ) from error
    finally:
        loader.dispose()


def places_of_keys(root: yaml.Node | None, source: str) -> dict[str, tuple[str, str]]:
    """Return where each key of a document's root stands, and where its value does: `source:line:column`."""
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return {str(key.value): (_place(key, source), _place(value, source)) for key, value in pairs}


def _place(node: yaml.Node, source: str) -> str:
    return f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


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
        quick = _Quick(loader)
        try:
            node = quick.get_single_node()
        except ContentError:
            raise
        except yaml.YAMLError:
            pass
        else:
            loader.aliases = quick.aliases
            return node
    return loader.get_single_node()


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _Quick(_Bounded, CParser, yaml.resolver.Resolver):
        """libyaml's parser below PyYAML's composer: libyaml's own overruns the stack on 100,000 brackets."""

        def __init__(self, loader: Loader) -> None:
            CParser.__init__(self, loader.text)
            yaml.composer.Composer.__init__(self)
            yaml.resolver.Resolver.__init__(self)
            self.yaml_implicit_resolvers = loader.yaml_implicit_resolvers
            self.deepest, self.most = loader.deepest, loader.most


def refuse_bombs(value: object, source: str, deepest: int = DEEPEST) -> None:
    """Raise InputError for a value of JSON that is too large or too deep, as `load` does for YAML."""
    level, nodes = [value], 0
    for _ in range(deepest + 1):
        parts = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [child for children in parts for child in children]
        nodes += len(level)
        if nodes > MOST_NODES:
            raise InputError.at(source, f"has more than {MOST_NODES:,} values", "split it")
    if level:
        raise InputError.at(source, f"is nested more than {deepest} deep", "use fewer levels")


def _refuse_large_aliases(root: yaml.Node, deepest: int) -> None:
    """Raise ContentError for aliases that stand for too much, or for what they stand in themselves."""
    sizes: dict[int, tuple[int, int, int]] = {}  # nodes, characters and depth of each node, its aliases expanded
    above = set[int]()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        children = _children(node)
        if id(node) not in sizes and id(node) not in above:
            above.add(id(node))
            if inside := [child for child in children if id(child) in above]:
                raise ContentError(inside[0], "contains itself", "write the value in place of the alias")
            waiting += [child for child in children if id(child) not in sizes]
            continue
        waiting.pop()
        above.discard(id(node))
        below = [sizes[id(child)] for child in children]
        nodes, own = 1 + sum(size[0] for size in below), len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        characters, depth = own + sum(size[1] for size in below), 1 + max((size[2] for size in below), default=0)
        sizes[id(node)] = nodes, characters, depth
        if nodes > MOST_EXPANDED or depth > deepest + 1:
            raise ContentError(node, "its aliases stand for too many keys and values", "write fewer aliases")
        if characters > MOST_CHARACTERS:
            raise ContentError(node, f"its aliases stand for more than {MOST_CHARACTERS:,} characters", "write fewer")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _duplicates(root: yaml.Node, loader: Loader) -> Iterator[Fault]:
    """Yield a fault for each key that its mapping has already."""
    waiting = [root]
    seen = set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _duplicate_keys(node, loader)
        waiting += reversed([value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value)


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
