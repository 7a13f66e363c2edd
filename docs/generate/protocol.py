"""The messages between operator and hosts, read from the sources of `remote/messages/`."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.generate.markdown import table

MESSAGES = Path(__file__).parents[2] / "flagscale_deploy/remote/messages"
Row = tuple[str, str, str, str]
"""(key, type, whether it is always there, meaning)"""


def sections() -> str:
    """Return a section for each module: its programs with their messages, and the keys of each message."""
    modules = [_Module(path) for path in sorted(MESSAGES.glob("*.py")) if path.stem != "__init__"]
    return "\n".join(part for module in modules for part in module.parts())


@dataclass
class _Message:
    """A TypedDict: its text, the public one that it extends, and its keys."""

    text: str
    base: str
    rows: list[Row]


class _Module:
    def __init__(self, path: Path) -> None:
        source = path.read_text(encoding="utf-8")
        self._name, self._tree = path.stem, ast.parse(source)
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        self._comments = {
            token.start[0]: token.string.strip("# ") for token in tokens if token.type == tokenize.COMMENT
        }
        self._messages: dict[str, _Message] = {}

    def parts(self) -> Iterator[str]:
        """Yield the parts of the section."""
        yield f"## {self._name}\n\n{' '.join((ast.get_docstring(self._tree) or '').split())}\n"
        programs = [row for node in self._tree.body if (row := _program(node)) is not None]
        if programs:
            yield table(("program", "arguments", "replies", "orders"), programs)
        for node, following in zip(self._tree.body, [*self._tree.body[1:], None], strict=True):
            yield from self._message(node, _text(following))

    def _message(self, node: ast.stmt, text: str) -> Iterator[str]:
        if isinstance(node, ast.ClassDef) and not any(_name(base) == "Generic" for base in node.bases):
            self._messages[node.name] = message = self._of_class(node)
            if not node.name.startswith("_"):
                yield _section(node.name, message)
        elif isinstance(node, ast.Assign) and _name(node.value) == "TypedDict":
            assert isinstance(node.value, ast.Call)
            name, message = self._of_call(node.value, text)
            self._messages[name] = message
            yield _section(name, message)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and _name(node.value) == "Union":
            kinds = _linked(ast.unparse(node.value.slice).strip("()"))
            yield f"### {ast.unparse(node.targets[0])}\n\nOne of {kinds}. {text}\n"

    def _of_call(self, call: ast.Call, text: str) -> tuple[str, _Message]:
        """Return name and message of `TypedDict("NAME", {"key": type})`."""
        name, keys = call.args
        assert isinstance(keys, ast.Dict)
        named = {key: kind for key, kind in zip(keys.keys, keys.values, strict=True) if key is not None}
        rows = [self._row(key, kind, _always(call.keywords)) for key, kind in named.items()]
        return ast.literal_eval(name), _Message(text, "", rows)

    def _of_class(self, node: ast.ClassDef) -> _Message:
        rows, base = [], ""
        for name in map(_name, node.bases):
            inherited = self._messages.get(name)
            if name.startswith("_") and inherited is not None:
                rows, base = [*inherited.rows], inherited.base
            elif name != "TypedDict":
                base = name
        always = _always(node.keywords)
        keys = [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]
        rows += [self._row(statement.target, statement.annotation, always) for statement in keys]
        return _Message(" ".join((ast.get_docstring(node) or "").split()), base, rows)

    def _row(self, key: ast.expr, kind: ast.expr, always: bool) -> Row:
        name, shown = (_text(node) or ast.unparse(node) for node in (key, kind))
        return (
            f"`{name}`",
            f"`{shown.replace(' | ', ' or ')}`",
            "yes" if always else "",
            self._comments.get(kind.lineno, ""),
        )


def _section(name: str, message: _Message) -> str:
    more = f" All keys of {_linked(message.base)}" + (", and these." if message.rows else ".") if message.base else ""
    keys = table(("key", "type", "always", "is"), message.rows) if message.rows else ""
    return f"### {name}\n\n{message.text}{more}\n\n{keys}"


def _program(node: ast.stmt) -> tuple[str, ...] | None:
    """Return (name, arguments, replies, orders) of `NAME = HostProgram[…]("name")`."""
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _name(node.value) == "HostProgram"):
        return None
    assert isinstance(node.value.func, ast.Subscript)
    kinds = ast.unparse(node.value.func.slice).strip("()").split(", ")
    return (f"`{_text(node.value.args[0])}`", *("none" if kind == "NoOrder" else _linked(kind) for kind in kinds))


def _always(keywords: list[ast.keyword]) -> bool:
    return not any(keyword.arg == "total" for keyword in keywords)


def _name(node: ast.expr) -> str:
    """Return the name of what is called or subscribed, or the expression itself."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    return _name(node.value) if isinstance(node, ast.Subscript) else ast.unparse(node)


def _linked(names: str) -> str:
    return ", ".join(f"[{name}](#{name.lower()})" for name in names.split(", "))


def _text(node: ast.AST | None) -> str:
    """Return a text in the source; "" for what is none."""
    node = node.value if isinstance(node, ast.Expr) else node
    return " ".join(str(node.value).split()) if isinstance(node, ast.Constant) and node.value is not None else ""
