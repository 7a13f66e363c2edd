"""The package's own sources, as tests of the house read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flagscale_deploy"


@dataclass(eq=False)
class Module:
    """A module below flagscale_deploy; `name` is `plan.planner`, a package's is its own, that of the root is ""."""

    name: str
    text: str

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def imports(self) -> frozenset[str]:
        """Full names of everything it imports, wherever it does it."""
        return frozenset(imported(self.nodes))

    @property
    def libraries(self) -> set[str]:
        """The first words of what it imports."""
        return {name.split(".")[0] for name in self.imports}

    def attributes_of(self, owner: str) -> set[str]:
        """Return the attributes that it uses of this name: `environ` for `os.environ`."""
        owned = [node for node in self.nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        return {node.attr for node in owned if isinstance(node.value, ast.Name) and node.value.id == owner}

    @property
    def attributes(self) -> set[str]:
        return {node.attr for node in self.nodes if isinstance(node, ast.Attribute)}

    @property
    def called(self) -> set[str]:
        """Functions that it calls by a bare name."""
        calls = [node.func for node in self.nodes if isinstance(node, ast.Call)]
        return {name_node.id for name_node in calls if isinstance(name_node, ast.Name)}


def imported(nodes: list[ast.AST]) -> Iterator[str]:
    """Full names of what is imported, `package.module.name`; a relative import is refused."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where one stands"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def read_package() -> dict[str, Module]:
    """Every module by its name; read and parsed once for all tests."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path.read_text(encoding="utf-8"))
    return modules
