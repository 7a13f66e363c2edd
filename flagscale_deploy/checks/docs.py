"""The page about checks, made from the table of them."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.model import Check
from flagscale_deploy.checks.registry import CHECKS

HEADER = """# Checks

What `flagscale-deploy check` looks at, and `run` before it starts anything. Each check is one function of what was seen
on the hosts. One that fails stops `run`; a warning stops nothing. `--skip-check NAME` leaves one out.

Made from `flagscale_deploy/checks/`: where the two differ, `make check` fails and prints the command to make it anew.

| check | group | looks at | expected | at worst | `--skip-check` |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The page in Markdown."""
    return HEADER + "".join(_rows())


def _rows() -> Iterator[str]:
    for check in CHECKS:
        cells = (f"`{check.name}`", check.group, check.description, check.expected, _state(check), _skip(check))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _state(check: Check) -> str:
    return "warning" if check.state == "warning" else "failed"


def _skip(check: Check) -> str:
    return "yes" if check.skippable else "no"
