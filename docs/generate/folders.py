"""The folders of the package: what their docstrings say, and the floors of the architecture test."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.generate.markdown import table as markdown_table
from tests.unit.test_architecture import FLOORS, MODULES, PACKAGES, arrows, untyped_mappings, variables

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


BEFORE = ("33", "47", "14", "216", "14", "9,946", "455")
"""The same figures before the package was laid out by subject (November 2026)."""


def figures() -> str:
    """Return how large and how entangled the package is, before it was laid out by subject and now."""
    names = [variable for module in MODULES.values() for _, variable in variables(module.tree)]
    rows = {
        "files in the package's root": sum("." not in name and name not in PACKAGES for name in MODULES),
        "folders, and modules of the root": len(arrows()),
        "floors": len(FLOORS),
        "arrows between folders": sum(map(len, arrows().values())),
        "`dict[str, Any]` and the like in 1,000 lines": f"{untyped_mappings():.1f}",
        "words in the README": f"{len((ROOT / 'README.md').read_text(encoding='utf-8').split()):,}",
        "variables named `each`": names.count("each"),
    }
    return markdown_table(
        ("figure", "before", "now"),
        [(name, old, str(now)) for (name, now), old in zip(rows.items(), BEFORE, strict=True)],
    )


def _summary(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
