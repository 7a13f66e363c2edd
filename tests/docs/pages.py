"""README.md and the pages of docs/ taken apart: what they tell people to type, what they show, their files and tables.

A fenced block marked `console` holds commands, each behind `$ `, and below a command what it prints: `…` stands for
any text in a line, and for any lines where it stands alone; two spaces or more count as two, so that columns may have
any width. Of a command with hosts, one page may leave out what another shows. A block marked `yaml` is a file; its
first line is `# NAME`, with words after a colon if need be.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).parents[2]
FIRST = ("docs/quickstart.md",)
"""Pages whose commands come before those of the others: a deployment is started, looked at and ended there."""

Place = Literal["make", "install", "hosts", "offline"]

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+?)(?::.*)?\n")


def read_pages() -> dict[str, str]:
    """Return the text of every page by its path in the repository, in the order in which their commands are run."""
    paths = [path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md")]
    ordered = [*FIRST, *sorted({*paths} - {*FIRST}), "README.md"]
    return {path: (REPOSITORY / path).read_text(encoding="utf-8") for path in ordered}


PAGES = read_pages()


@dataclass(frozen=True)
class Command:
    """A line to type, what it prints, and the page that shows it."""

    line: str
    output: str = ""
    page: str = ""

    def prints(self, printed: str) -> bool:
        """Return whether what a command printed is what the page shows."""
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
        if re.search(r"\bpip install|\bpipx install|\buv tool install", lines):
            return "install"
        return "hosts" if "-i hosts.yaml" in lines else "offline"

    def __str__(self) -> str:
        return f"{self.commands[0].page}: {self.commands[0].line}"


def console_blocks(*places: Place, page: str | None = None) -> list[Block]:
    """Return the blocks of commands that are run at these places, of all pages or of one."""
    blocks = [
        Block(tuple(_commands(body, path)))
        for path, kind, body in _blocks()
        if kind == "console" and page in (None, path)
    ]
    return [block for block in blocks if block.place in places]


def host_commands() -> dict[str, list[Command]]:
    """Return each line to type with hosts once, in order, with all that pages show of what it prints."""
    commands: dict[str, list[Command]] = {}
    for block in console_blocks("hosts"):
        for command in block.commands:
            commands.setdefault(command.line, []).append(command)
    return {line: [command for command in showing if command.output] or showing for line, showing in commands.items()}


def files() -> dict[str, str]:
    """Return the files that the pages show, by name.

    Raises ValueError for a block of YAML without a name, and for a name that two pages give to different texts.
    """
    shown: dict[str, str] = {}
    for path, kind, body in _blocks():
        if kind == "yaml":
            name = _FILE.match(body)
            if name is None:
                raise ValueError(f"{path}: a block of YAML begins without `# NAME`: {body[:60]!r}")
            if shown.setdefault(name[1], body) != body:
                raise ValueError(f"{path}: {name[1]} is not what another page shows under this name")
    return shown


def kinds_of_blocks() -> list[tuple[str, str]]:
    """Return (page, how it is marked) for each block."""
    return [(path, kind) for path, kind, _ in _blocks()]


def python_blocks() -> list[str]:
    """Return the blocks of Python."""
    return [body for _, kind, body in _blocks() if kind == "python"]


def tables(first_column: str, page: str | None = None) -> list[list[list[str]]]:
    """Return the rows of every table whose first column is headed so; a row is a list of cells."""
    shown = []
    for path, text in PAGES.items():
        for table in re.findall(r"(?:^\|.*\|$\n)+", text, re.MULTILINE) if page in (None, path) else ():
            head, _, *rows = [_cells(line) for line in table.splitlines()]
            if head[0] == first_column:
                shown.append(rows)
    return shown


def code(cell: str) -> list[str]:
    """Return what stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a page for people: no code, tables, headings and comments; a piece of code is one word."""
    text = re.sub(r"<!--.*?-->", "", _BLOCK.sub("\n\n", text), flags=re.DOTALL)
    text = re.sub(r"^(?:\||#|!\[).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]+`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from (part for part in re.split(r"(?<=[.!?])[*)]*\s+", " ".join(paragraph.split())) if part)


def _blocks() -> Iterator[tuple[str, str, str]]:
    """Yield (page, how it is marked, text) of each block."""
    for path, text in PAGES.items():
        for _, kind, body in _BLOCK.findall(text):
            yield path, kind, textwrap.dedent(body)


def _cells(line: str) -> list[str]:
    inside = re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\0"), line).strip().strip("|")
    return [cell.strip().replace("\0", "|") for cell in inside.split("|")]


def _commands(body: str, page: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield Command(line, output, page)


def _pattern(shown: str) -> str:
    lines = []
    for line in _columns(shown).splitlines():
        lines.append(r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line).replace("…", ".*") + r"\n")
    return "".join(lines)


def _columns(text: str) -> str:
    return "".join(re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) + "\n" for line in text.splitlines())
