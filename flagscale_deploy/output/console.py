"""The only writer to the terminal: progress while things happen, tables and panels when they have."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.cells import cell_len, get_character_cell_size
from rich.console import Console as RichConsole
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Span, Text

from flagscale_deploy.events import Event
from flagscale_deploy.secrets import Redactor

MARKS = {"running": "…", "progress": "…", "done": "✓", "failed": "✗", "note": "·"}
STYLES = {"running": "cyan", "progress": "cyan", "done": "green", "failed": "red", "note": "yellow"}

PIPE_WIDTH = 400
"""Where no terminal folds lines, tables don't either."""

GAP = "  "
"""Between two columns of a table."""

_SGR = re.compile(r"\x1b\[[0-9;]*m")
"""Colours, which logs are full of."""
_JSON_LINE = json.JSONEncoder(ensure_ascii=False, default=str).encode
_UNUSUAL = re.compile(r"[^ -~\n]")


@dataclass
class Console:
    """Results go to standard output, progress and errors to standard error; every text is redacted on its way."""

    quiet: bool = False
    verbose: bool = False
    color: bool = True
    redactor: Redactor = field(default_factory=Redactor)

    def __post_init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 breaks no command
        settings: dict[str, Any] = {"no_color": not self.color, "highlight": False, "soft_wrap": True, "emoji": False}
        self.out = RichConsole(**settings, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self.err = RichConsole(**settings, stderr=True)

    def print(self, text: str = "") -> None:
        """A line of the result, as it is: no markup, no wrapping."""
        self.out.print(Text(self.clean(text)))

    def json(self, content: Mapping[str, Any]) -> None:
        """The result as JSON. What is not printable in it is escaped."""
        self.write(self._printable(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"))

    def json_lines(self, contents: Iterable[Mapping[str, Any]]) -> str:
        """Each as a line of JSON that may be written."""
        return self._printable("".join(_JSON_LINE(each) + "\n" for each in contents))

    def write(self, text: str) -> None:
        """Lines of the result that may be written as they are: redacted, and all that is in them is printable."""
        self.out.file.write(text)
        self.out.file.flush()

    def styled(self, text: Text) -> str:
        """A text with the codes by which this output shows its colours, where it shows any."""
        with self.out.capture() as shown:
            self.out.print(text, end="")
        return shown.get()

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table that folds long cells where the terminal is narrow."""
        if title:
            self.out.print(Text(self.clean(title), style="bold"))
        listed = [list(row) for row in rows]
        texts = [str(cell) for row in listed for cell in row if not isinstance(cell, Text)]
        clean = iter(self._all_plain(texts) or map(self.clean, texts))
        cells = [[cell if isinstance(cell, Text) else next(clean) for cell in row] for row in listed]
        table = _aligned(columns, cells, self.out.width) or _folding(columns, cells)
        self.out.print(table, soft_wrap=isinstance(table, Text))

    def state(self, state: str) -> Text:
        """A state in its colour."""
        good, bad = (
            ("ready", "finished", "running", "ok", "stopped", "nothing", "passed"),
            ("dead", "gave up", "failed", "UNKNOWN", "survivors"),
        )
        return Text(state, style="green" if state in good else "red" if state in bad else "yellow")

    def error(self, text: str) -> None:
        """An error, or anything else that must be read."""
        self.err.print(Text(self.clean(text), style="red"))

    def note(self, text: str) -> None:
        """Something worth knowing that is not the result."""
        if not self.quiet:
            self.err.print(Text(self.clean(text)))

    def progress(self, title: str) -> Progress:
        """Shows events while a `with` block runs: a live view on a terminal, plain lines elsewhere."""
        live = self.err.is_terminal and not self.quiet and not self.verbose
        return LiveProgress(self, title) if live else Progress(self, title)

    def clean(self, text: str) -> str:
        """Redacted, and without control characters that a host may have sent to play with the terminal."""
        hidden = self._hidden(text)
        if hidden.isprintable():
            return hidden
        return "".join(char if char in "\n\t" or char.isprintable() else f"\\x{ord(char):02x}" for char in hidden)

    def clean_lines(self, lines: Sequence[str]) -> list[str]:
        """Each as `clean` shows it, in one piece: what could end it is shown. Fast where they are plain text."""
        return self._all_plain(lines) or [self.clean(line).replace("\n", "\\n") for line in lines]

    def _all_plain(self, texts: Sequence[str]) -> list[str] | None:
        """Each as `clean` shows it, all at once, where they are plain text without line ends; else None."""
        hidden = self._hidden("\n".join(texts))
        plain = hidden.count("\n") == len(texts) - 1 and not _UNUSUAL.search(hidden)
        return hidden.split("\n") if plain else None

    def _hidden(self, text: str) -> str:
        return _SGR.sub("", self.redactor.redact(text))

    def _printable(self, text: str) -> str:
        return _UNUSUAL.sub(_escaped, self.redactor.redact(text))


def _escaped(char: re.Match[str]) -> str:
    """A character of JSON text: outside of its strings, all are printable but the line end."""
    return char[0] if char[0].isprintable() else json.dumps(char[0])[1:-1]


def _folding(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table whose long cells are folded."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", header_style="dim")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str | Text]], width: int) -> Text | None:
    """What `_folding` looks like where every cell has its line; None where one has not.

    Rich measures, folds and pads each cell: 1.7 s for the 19,000 of a plan for 1000 hosts, where this takes 0.1 s.
    """
    lines = [[Text(column, style="bold dim") for column in columns], *rows]
    texts = [[cell if isinstance(cell, str) else cell.plain for cell in line] for line in lines]
    if not all(_is_plain(text) for line in texts for text in line):
        return None
    lengths = [[cell_len(text) for text in line] for line in texts]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    if sum(widths) + len(GAP) * (len(widths) - 1) > width:
        return None
    table, spans, at = [], [], 0
    for cells, line, length in zip(lines, texts, lengths, strict=True):
        padded = [text + " " * (most - taken) for text, most, taken in zip(line, widths, length, strict=True)]
        table.append(GAP.join(padded))
        for cell, text in zip(cells, padded, strict=True):
            if isinstance(cell, Text) and cell.style:
                spans.append(Span(at, at + len(cell.plain), cell.style))
            at += len(text) + len(GAP)
        at += 1 - len(GAP)
    return Text("\n".join(table), spans=spans)


def _is_plain(text: str) -> bool:
    """Whether every character of a cell takes its own place: no line ends, tabs, or accents that join another."""
    return "\n" not in text and "\t" not in text and (text.isascii() or all(map(get_character_cell_size, text)))


class Progress:
    """Events as plain lines, each with its time since the start."""

    def __init__(self, console: Console, title: str) -> None:
        self.console, self.title = console, title
        self.began = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        """Nothing is left to be drawn."""

    def __call__(self, event: Event) -> None:
        if self.console.quiet and event.state != "failed":
            return
        host = f"[{event.host}] " if event.host else ""
        took = f" ({event.elapsed:.1f} s)" if event.elapsed is not None else ""
        self.console.err.print(
            Text(self.console.clean(f"{self._clock()} {MARKS[event.state]} {host}{event.stage}: {_said(event)}{took}"))
        )

    def _clock(self) -> str:
        return f"{time.monotonic() - self.began:6.1f}s"


class LiveProgress(Progress):
    """A line for each host and stage at work, redrawn in place; what is done or failed stays above it."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._working: dict[tuple[str, str], tuple[Event, float]] = {}
        self._changing = threading.Lock()
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._draw, console=console.err, refresh_per_second=8, transient=True)

    def __enter__(self) -> Progress:
        self._live.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._changing:
            took = self._note(event)
        if event.state not in ("running", "progress"):
            self._live.console.print(self._line(event, "" if took is None else f"{took:.1f} s"), soft_wrap=False)

    def _note(self, event: Event) -> float | None:
        """Keep what is at work; the seconds that something took, once it is over and if they are known."""
        key, now = (event.stage, event.host), time.monotonic()
        if event.state in ("running", "progress"):
            self._working[key] = event, self._working.get(key, (event, now))[1]
            return None
        if event.state == "note":
            return event.elapsed
        began = self._working.pop(key, (event, None))[1]
        if not event.host:
            self._working = {each: value for each, value in self._working.items() if each[0] != event.stage}
        return event.elapsed if event.elapsed is not None or began is None else now - began

    def _draw(self) -> Table:
        with self._changing:
            working = list(self._working.values())
        table = Table.grid(padding=(0, 1))
        table.add_row(self._spinner, Text(f"{self.title}  {self._clock().strip()}", style="bold"))
        for event, began in working[: max(3, self.console.err.height - 4)]:
            table.add_row("", self._line(event, f"{time.monotonic() - began:.0f} s"))
        return table

    def _line(self, event: Event, took: str) -> Text:
        line = Text(MARKS[event.state] + " ", style=STYLES[event.state])
        line.append(f"{event.host or 'here'} ", style="bold")
        line.append(self.console.clean(f"{event.stage}: {_said(event)} "), style="")
        return line.append(took, style="dim")


def _said(event: Event) -> str:
    percent = f" {event.percent:.0f}%" if event.percent is not None else ""
    return f"{event.text}{percent}" if event.text else event.state
