"""The folders of the package: what their docstrings say, and the floors of the architecture test."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.generate.markdown import table as markdown_table
from tests.unit.test_architecture import FLOORS

ROOT = Path(__file__).parents[2]


def table() -> str:
    """Return a row for each folder of the package, with the first paragraph of its docstring."""
    files = sorted((ROOT / "flagscale_deploy").rglob("__init__.py"))
    rows = [(f"`{file.parent.relative_to(ROOT).as_posix()}/`", _summary(file)) for file in files]
    return markdown_table(("folder", "holds"), rows)


def floors() -> str:
    """Return a row for each floor, the highest first."""
    numbered = reversed(list(enumerate(FLOORS, 1)))
    rows = [(str(number), ", ".join(f"`{folder}`" for folder in folders)) for number, folders in numbered]
    return markdown_table(("floor", "folders, and modules of the root"), rows)


def _summary(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
