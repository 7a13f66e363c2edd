"""All regular expressions of the package, and texts that may make each slow: repetitions of its own parts."""

from __future__ import annotations

import ast
import importlib
import itertools
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from flagscale_deploy.diagnosis.table import signatures
from tests.unit.sources import read_package

YOUNG = sys.version_info >= (3, 11)
parser: Any = importlib.import_module("re._parser" if YOUNG else "sre_parse")
constants: Any = importlib.import_module("re._constants" if YOUNG else "sre_constants")

METHODS = frozenset(("search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"))
SAMPLES = "a0 _.-=:/,\"'()[]{}\t\n\r#~AZzé"
"""Characters that stand for a class, the first that is in it."""
DYNAMIC = {
    "api.smoke_phases": "the operator's own --expect",
    "config.source": "PyYAML's own patterns of numbers, of one word",
    "inventory.patterns": "the operator's own pattern of hosts, over names of hosts",
    "output.smoke": "the operator's own --expect",
    "secrets": "alternatives of literal texts",
    "diagnosis.table": "signatures.yaml, which is looked through as a whole",
}
"""Modules with patterns that are made while it runs, and of what."""


@dataclass(frozen=True)
class Use:
    """A pattern with how it is applied to a text."""

    place: str
    pattern: re.Pattern[Any]
    method: str

    def __str__(self) -> str:
        return f"{self.place}: {self.method} {self.pattern.pattern!r}"

    def apply(self, text: str) -> None:
        """Apply it to a text."""
        subject: Any = text.encode() if isinstance(self.pattern.pattern, bytes) else text
        if self.method in ("sub", "subn"):
            self.pattern.sub(self.pattern.pattern[:0], subject)
        elif self.method == "finditer":
            list(self.pattern.finditer(subject))
        else:
            getattr(self.pattern, self.method)(subject)


@cache
def uses() -> list[Use]:
    """Return every pattern of the package with each way in which it is applied."""
    collected = {(use.pattern, use.method): use for use in (*_named(), *_inline())}
    for signature in signatures():
        collected.setdefault((signature.regex, "search"), Use(f"signature {signature.name}", signature.regex, "search"))
    return sorted(collected.values(), key=str)


def _named() -> Iterator[Use]:
    """Yield the patterns that modules hold, with the methods called on their names, `search` where none is."""
    modules = read_package()
    called: dict[tuple[str, str], set[str]] = {}
    for name, module in modules.items():
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.value, ast.Name):
                owner = name if node.value.id.startswith("_") or node.value.id == "pattern" else ""
                called.setdefault((owner, node.value.id), set()).add(node.attr)
    for name in modules:
        if name == "__main__" or name.startswith("serve"):
            continue
        for variable, value in vars(importlib.import_module(f"flagscale_deploy.{name}".rstrip("."))).items():
            word = variable if isinstance(value, re.Pattern) else "pattern"  # the loop's variable
            methods = called.get(("" if word[0] != "_" and word != "pattern" else name, word), {"search"})
            for pattern in _within(value):
                yield from (Use(f"{name}.{variable}", pattern, method) for method in methods)


def _within(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _within(item)
    elif isinstance(value, dict):
        yield from _within(list(value.values()))


def _inline() -> Iterator[Use]:
    """Yield the patterns in calls like `re.search(r"…", text)`."""
    for name, module in read_package().items():
        for node in module.nodes:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.args):
                continue
            if node.func.attr in METHODS:
                namespace = vars(importlib.import_module(f"flagscale_deploy.{name}"))
                flags = [*node.args[{"sub": 4, "subn": 4, "split": 3}.get(node.func.attr, 2) :]]
                flags += [*(word.value for word in node.keywords if word.arg == "flags")]
                compiled = ast.Call(ast.Name("compile", ast.Load()), [node.args[0], *flags], [])
                expression = ast.fix_missing_locations(ast.Expression(compiled))
                try:
                    pattern = eval(compile(expression, name, "eval"), {**namespace, "compile": re.compile})
                except NameError:
                    assert name in DYNAMIC, f"{name}:{node.lineno}: a pattern that is made while it runs"
                    continue
                yield Use(f"{name}:{node.lineno}", pattern, node.func.attr)


def hostile_texts(pattern: re.Pattern[Any], size: int) -> Iterator[str]:
    """Yield texts of about `size` characters: each part of the pattern repeated, behind what leads to it or alone.

    No text ends as the pattern does, so that every beginning of a match fails late.
    """
    for before, unit in units_of(pattern):
        for head in {"", before}:
            yield head + unit * (size // len(unit)) + "\x00\n\x00"


def units_of(pattern: re.Pattern[Any]) -> list[tuple[str, str]]:
    """Return samples of the parts of a pattern, each with a text that leads to it."""
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    units: dict[tuple[str, str], None] = {}
    _collect(parser.parse(source, pattern.flags & ~re.UNICODE & ~re.ASCII), "", units)
    return list(units)


def _collect(sequence: Any, before: str, units: dict[tuple[str, str], None]) -> None:
    """Note every element of a sequence, every run of elements, and what is within them, each with what precedes it."""
    sequence = list(_joined(sequence))
    shown = [_sample(element) for element in sequence]
    for start in range(len(shown)):
        for end in range(start + 1, len(shown) + 1):
            unit = "".join(shown[start:end])
            if unit and (end - start <= 3 or start == 0 or end == len(shown)):
                units[before + "".join(shown[:start]), unit] = None
    for number, (kind, content) in enumerate(sequence):
        ahead = before + "".join(shown[:number])
        for inner in _inner(kind, content):
            _collect(inner, ahead, units)


def _joined(sequence: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the elements of a sequence, adjacent literal characters as one text."""
    for kind, run in itertools.groupby(sequence, key=lambda element: element[0]):
        if kind is constants.LITERAL:
            yield "text", "".join(chr(content) for _, content in run)
        else:
            yield from run


def _inner(kind: Any, content: Any) -> Iterator[Any]:
    if kind is constants.BRANCH:
        yield from content[1]
    elif kind is constants.SUBPATTERN:
        yield content[3]
    elif kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        yield content[2]
    elif kind in (constants.ASSERT, constants.ASSERT_NOT):
        yield content[1]
    elif str(kind) == "POSSESSIVE_REPEAT":
        yield content[2]
    elif str(kind) == "ATOMIC_GROUP":
        yield content


def _sample(element: Any) -> str:
    """Return a short text that the element of a pattern matches."""
    kind, content = element
    if kind == "text":
        return str(content)
    if kind is constants.LITERAL:
        return chr(content)
    if kind is constants.NOT_LITERAL:
        return "b" if content == ord("a") else "a"
    if kind is constants.ANY:
        return "a"
    if kind is constants.IN:
        charset = re.compile(_class(content))
        members: Iterator[str] = filter(charset.match, map(chr, (*map(ord, SAMPLES), *range(0x3000))))
        return next(members, "a")
    if kind is constants.BRANCH:
        return "".join(map(_sample, content[1][0]))
    if kind in (constants.MAX_REPEAT, constants.MIN_REPEAT) or str(kind) == "POSSESSIVE_REPEAT":
        return "".join(map(_sample, content[2])) * max(int(content[0]), 1)
    if kind is constants.SUBPATTERN:
        return "".join(map(_sample, content[3]))
    if str(kind) == "ATOMIC_GROUP":
        return "".join(map(_sample, content))
    return ""


def _class(content: Any) -> str:
    """Return the source of a class of characters."""
    parts = []
    for kind, value in content:
        if kind is constants.NEGATE:
            parts.append("^")
        elif kind is constants.LITERAL:
            parts.append(re.escape(chr(value)))
        elif kind is constants.RANGE:
            parts.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        else:
            parts.append({"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w", "NOT_DIGIT": r"\D", "NOT_SPACE": r"\S",
                          "NOT_WORD": r"\W"}[str(value).removeprefix("CATEGORY_")])  # fmt: skip
    return f"[{''.join(parts)}]"


def doubled_texts(pattern: re.Pattern[Any], size: int, chosen: random.Random, most: int) -> Iterator[str]:
    """Yield at most so many texts of two parts, each repeated for half of the size."""
    units = units_of(pattern)
    pairs = [(head, one, other) for before, one in units for head in {before, ""} for _, other in units]
    for head, one, other in chosen.sample(pairs, min(most, len(pairs))):
        yield head + one * (size // 2 // len(one)) + other * (size // 2 // len(other)) + "\x00\n\x00"
