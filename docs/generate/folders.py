"""The folders of the package, by the first paragraph of their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.generate.markdown import table as markdown_table

ROOT = Path(__file__).parents[2]


def table() -> str:
    """Return a row for each folder of the package."""
    files = sorted((ROOT / "flagscale_deploy").rglob("__init__.py"))
    rows = [(f"`{file.parent.relative_to(ROOT).as_posix()}/`", _summary(file)) for file in files]
    return markdown_table(("folder", "holds"), rows)


def _summary(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
