"""The README taken apart: what it tells people to type, what they will see, which files and tables it shows.

A fenced block marked `console` holds commands, each behind `$ `, and below a command what it prints: `…` stands for
any text in a line, and for any lines where it stands alone; two spaces or more count as two, so that columns may have
any width. A block marked `yaml` is a file; its first line is `# NAME`, with words after a colon if need be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")

Place = Literal["make", "install", "hosts", "offline"]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+?)(?::.*)?\n")


@dataclass(frozen=True)
class Command:
    """A line to type, and what it prints."""

    line: str
    output: str = ""

    def prints(self, printed: str) -> bool:
        """Whether what a command printed is what the README shows."""
        return re.fullmatch(_pattern(self.output), _columns(printed)) is not None


@dataclass(frozen=True)
class Block:
    """Commands that belong together; `place` is where they are run: by CI, after an install, with hosts, anywhere."""

    commands: tuple[Command, ...]

    @property
    def place(self) -> Place:
        lines = "\n".join(command.line for command in self.commands)
        if lines.startswith("make "):
            return "make"
        if "pip install" in lines:
            return "install"
        return "hosts" if "-i hosts.yaml" in lines else "offline"

    def __str__(self) -> str:
        return self.commands[0].line


def console_blocks(*places: Place) -> list[Block]:
    """The blocks of commands that are run at these places, in the README's order."""
    blocks = [Block(tuple(_commands(body))) for kind, body in _BLOCK.findall(TEXT) if kind == "console"]
    return [block for block in blocks if block.place in places]


def files() -> dict[str, str]:
    """The files that the README shows, by name. Raises ValueError for a block of YAML without one."""
    found = {}
    for kind, body in _BLOCK.findall(TEXT):
        if kind == "yaml":
            name = _FILE.match(body)
            if name is None:
                raise ValueError(f"a block of YAML begins without `# NAME`: {body[:60]!r}")
            found[name[1]] = body
    return found


def kinds_of_blocks() -> list[str]:
    """How each block is marked."""
    return [kind for kind, _ in _BLOCK.findall(TEXT)]


def tables(first_column: str) -> list[list[list[str]]]:
    """The rows of every table whose first column is headed so; a row is a list of cells."""
    found = []
    for table in re.findall(r"(?:^\|.*\|$\n)+", TEXT, re.MULTILINE):
        head, _, *rows = [_cells(line) for line in table.splitlines()]
        if head[0] == first_column:
            found.append(rows)
    return found


def code(cell: str) -> list[str]:
    """What stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def _cells(line: str) -> list[str]:
    inside = re.sub(r"`[^`]*`", lambda found: found[0].replace("|", "\0"), line).strip().strip("|")
    return [cell.strip().replace("\0", "|") for cell in inside.split("|")]


def _commands(body: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield Command(line, output)


def _pattern(shown: str) -> str:
    lines = []
    for line in _columns(shown).splitlines():
        lines.append(r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line).replace("…", ".*") + r"\n")
    return "".join(lines)


def _columns(text: str) -> str:
    return "".join(re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) + "\n" for line in text.splitlines())
