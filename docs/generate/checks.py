"""The table of checks."""

from __future__ import annotations

from docs.generate.markdown import table as markdown_table
from flagscale_deploy.checks.registry import CHECKS


def table() -> str:
    """Return a row for each check."""
    head = ("check", "group", "what it does", "expected", "at worst", "`--skip-check`")
    rows = [
        (
            f"`{check.name}`",
            check.group,
            check.description,
            check.expected,
            "warning" if check.state == "warning" else "failed",
            "yes" if check.skippable else "no",
        )
        for check in CHECKS
    ]
    return markdown_table(head, rows)
