"""The parts of the documentation that come from the code.

A page holds them between `<!-- generated: NAME -->` and `<!-- end -->`. `python -m docs.generate` writes them anew; a
test fails where a committed page differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generate import checks, commands, diagnosis, folders, keys, protocol

FOLDER = Path(__file__).parents[1]
PARTS: Mapping[str, Callable[[], str]] = {
    "commands": commands.overview,
    "options": commands.options_of_each,
    "common options": commands.common_options,
    "keys of a host": keys.of_host,
    "keys of deploy": keys.of_deploy,
    "keys of experiment": keys.of_experiment,
    "keys of a node": keys.of_node,
    "ignored keys": keys.ignored,
    "checks": checks.table,
    "diagnosis": diagnosis.tables,
    "folders": folders.table,
    "floors": folders.floors,
    "figures": folders.figures,
    "protocol": protocol.sections,
}
_PART = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return sorted(FOLDER.rglob("*.md"))


def renewed(text: str) -> str:
    """Return a page with its generated parts written anew. Raises KeyError for the name of a part that there is not."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]().strip()}\n{part[3]}", text)


def names(text: str) -> list[str]:
    """Return the names of the generated parts in a page."""
    return [name for _, name, _ in _PART.findall(text)]
