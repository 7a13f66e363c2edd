"""Code branches on types and kinds, never on a text that people read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.unit.sources import PACKAGE

TEXTS = frozenset(("problem", "remedy", "found", "expected", "use"))
"""The attributes that hold a text for people: of faults, errors, findings, links."""
QUESTIONS = frozenset(("startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "find",
                       "index", "count"))  # fmt: skip
FOREIGN = {
    "transport/ssh_errors.py": "Paramiko has no type of its own for a login without any key: SSHException",
    "remote/engine/openai.py": "vLLM's reply says in words that a model has no completions",
}


def branches(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that look for something in a text of ours or in the text of an exception."""
    exceptions = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
    exceptions.add("error")

    def is_text(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in TEXTS
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "str"
            and any(isinstance(name, ast.Name) and name.id in exceptions for name in node.args)
        )

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            blank = any(isinstance(side, ast.Constant) and side.value in ("", None) for side in sides)
            if any(map(is_text, sides)) and not blank:
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = node.func.attr in QUESTIONS and is_text(node.func.value)
            searched = node.func.attr in ("search", "match", "fullmatch") and any(map(is_text, node.args))
            if asked or searched:
                yield node.lineno


def test_no_code_looks_into_a_text_for_people() -> None:
    lines = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if str(path.relative_to(PACKAGE)) not in FOREIGN
        for line in branches(ast.parse(path.read_text()))
    ]
    assert lines == []


@pytest.mark.parametrize(
    "code",
    [
        "'refused' in error.problem",
        "link.problem.startswith('not tried')",
        "link.use == 'data'",
        "re.search('port', finding.found)",
        "try:\n    pass\nexcept OSError as wrong:\n    'late' in str(wrong)",
    ],
)
def test_such_code_is_found(code: str) -> None:
    assert list(branches(ast.parse(code)))


def test_a_text_may_be_missing() -> None:
    assert not list(branches(ast.parse("link.problem == ''\nif link.problem:\n    pass")))
