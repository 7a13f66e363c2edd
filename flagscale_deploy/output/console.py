"""Write to the terminal: progress while a command works, tables and lines of the result. Nothing else writes there."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flagscale_deploy.events import Event
from flagscale_deploy.output.ci import in_json
from flagscale_deploy.output.streams import for_progress, for_results
from flagscale_deploy.output.tables import aligned, folding
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.secrets.json_texts import redact_texts, redacted_json, without_secrets
from flagscale_deploy.support.units import counted
from flagscale_deploy.text import bare, plain, without_colours

MARKS = {"running": "…", "progress": "…", "done": "✓", "failed": "✗", "note": "·"}
STYLES = {"running": "cyan", "progress": "cyan", "done": "green", "failed": "red", "note": "yellow"}

PIPE_WIDTH = 400
"""Width of tables that go to a pipe or file: cells are not folded."""
LONGEST_CELL = 4000
"""Characters of a table's cell that are shown: a host may send any text."""

_JSON_LINE = json.JSONEncoder(ensure_ascii=False, default=str).encode
Line = Mapping[str, object]
_UNUSUAL = re.compile(r"[^ -~\n]")


@dataclass
class Console:
    """Results go to standard output, progress and errors to standard error; every text is redacted."""

    quiet: bool = False
    verbose: bool = False
    color: bool = True
    redactor: Redactor = field(default_factory=Redactor)

    def __post_init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not break a command
        settings: dict[str, Any] = {"no_color": not self.color, "highlight": False, "soft_wrap": True, "emoji": False}
        self._progress = for_progress(sys.stderr)
        results = for_results(sys.stdout, self._progress.settle)
        self.out = RichConsole(**settings, file=results, width=None if results.isatty() else PIPE_WIDTH)
        self.err = RichConsole(**settings, file=cast(IO[str], self._progress))

    def settle(self) -> None:
        """Wait a little until progress and errors are shown; a terminal or pager may hold them up for ever."""
        self._progress.settle()

    @property
    def draws(self) -> bool:
        """Return whether standard output is a terminal that can be drawn on anew."""
        return self.out.is_terminal and not self.out.is_dumb_terminal

    def redraw(self, lines: Sequence[str]) -> None:
        """Show lines, which are redacted and printable already, in place of all that the terminal shows."""
        self.out.clear()
        self.write("\n".join([*lines, ""]))

    def print(self, *lines: str) -> None:
        """Print lines of the result literally: no markup, no wrapping; a line end within one is escaped."""
        self.out.print(self._text(lines))

    def text(self, text: str) -> None:
        """Print a result that has lines of its own."""
        self.out.print(Text(self.clean(text)))

    def json(self, content: Mapping[str, object]) -> None:
        """Print the result as JSON; characters that are not printable are escaped."""
        seen = self._seen_through(content)
        try:
            text = redacted_json(seen, _json, self.redactor.redact)
        except ValueError:  # a number that JSON does not have
            text = redacted_json(_finite(seen), _json, self.redactor.redact)
        self.write(in_json(_UNUSUAL.sub(_escaped, text + "\n")))

    def json_lines(self, contents: Iterable[Line]) -> str:
        """Return every item as a line of JSON, redacted and printable."""
        contents = list(contents)
        whole = "\n".join(str(value) for content in contents for value in content.values())
        if self.redactor.seen(whole) is not whole or self.redactor.redact(whole) != whole:
            contents = self._hidden_in_lines([cast(Line, self._seen_through(content)) for content in contents])
        return in_json(_UNUSUAL.sub(_escaped, "".join(_JSON_LINE(content) + "\n" for content in contents)))

    def _hidden_in_lines(self, contents: Sequence[Line]) -> list[Line]:
        redact = self.redactor.redact
        lines = redact_texts([str(content.get("line", "")) for content in contents], redact)
        return [cast(Line, without_secrets({**content, "line": line} if "line" in content else content, redact))
                for content, line in zip(contents, lines, strict=True)]  # fmt: skip

    def write(self, text: str) -> None:
        """Write text that is already redacted and printable."""
        self.out.file.write(text)
        self.out.file.flush()

    def styled(self, text: Text) -> str:
        """Return a text with the colour codes of this output, or none where it shows no colours."""
        with self.out.capture() as shown:
            self.out.print(text, end="")
        return shown.get()

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table that folds long cells where the terminal is narrow; a tuple is a cell of several lines."""
        if title:
            self.out.print(self._text([title], style="bold"))
        listed = [list(row) for row in rows]
        texts = [str(cell) for row in listed for cell in row if not isinstance(cell, (Text, tuple))]
        clean = map(_cut, self.clean_lines(texts))
        cells = [[next(clean) if not isinstance(cell, (Text, tuple)) else self._shaped(cell) for cell in row]
                 for row in listed]  # fmt: skip
        table = aligned(columns, cells, self.out.width) or folding(columns, cells, self.out.width)
        self.out.print(table, soft_wrap=isinstance(table, Text))

    def state(self, state: str) -> Text:
        """Return a state in its colour."""
        good, bad = (
            ("ready", "finished", "running", "ok", "stopped", "nothing", "passed"),
            ("dead", "gave up", "failed", "UNKNOWN", "survivors"),
        )
        return Text(state, style="green" if state in good else "red" if state in bad else "yellow")

    def error(self, *lines: str) -> None:
        """Print the lines of an error, or others that must be read."""
        self.err.print(self._text(lines, style="red"))

    def note(self, *lines: str) -> None:
        """Print additional information that is not the result."""
        if not self.quiet:
            self.err.print(self._text(lines))

    def progress(self, title: str) -> Progress:
        """Return a view that shows events while a `with` block runs: live on a terminal, else plain lines."""
        live = self.err.is_terminal and not self.err.is_dumb_terminal and not self.quiet and not self.verbose
        return LiveProgress(self, title) if live else Progress(self, title)

    def clean(self, text: str) -> str:
        """Return text without control characters, which a host may send to manipulate the terminal, and redacted.

        A secret with characters in it that show nothing is a secret as well: those are left out then.
        """
        return self.redactor.redact(plain(self.redactor.seen(text)))

    def clean_lines(self, lines: Sequence[str]) -> list[str]:
        """Return lines as `clean` does, with line ends inside escaped; fast, since done with all of them at once."""
        joined = without_colours("\n".join(line.replace("\n", "\\n") if "\n" in line else line for line in lines))
        if _UNUSUAL.search(joined) and bare(joined) != joined:
            joined = plain(joined) if self.redactor.seen(joined) is joined else "\n" * len(lines)
        hidden = self.redactor.redact(joined)
        if hidden.count("\n") == len(lines) - 1:
            return hidden.split("\n")
        return [self.clean(line).replace("\n", "\\n") for line in lines]

    def _text(self, lines: Sequence[str], style: str = "") -> Text:
        return Text("\n".join(self.clean_lines(lines or ("",))), style=style)

    def _shaped(self, cell: Text | tuple[str, ...]) -> str | Text:
        return cell if isinstance(cell, Text) else _cut("\n".join(self.clean_lines(cell)))

    def _seen_through(self, value: object) -> object:
        """Return the content of JSON with `Redactor.seen` of each text in it."""
        if isinstance(value, str):
            return self.redactor.seen(value)
        if isinstance(value, Mapping):
            return {
                self.redactor.seen(key) if isinstance(key, str) else key: self._seen_through(value[key])
                for key in value
            }
        return [self._seen_through(item) for item in value] if isinstance(value, (list, tuple)) else value


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str, allow_nan=False)


def _finite(content: object) -> object:
    """Return content with null in the place of NaN and infinities."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def _escaped(char: re.Match[str]) -> str:
    """Escape a character of JSON text: outside of its strings, all but the line end are printable."""
    return char[0] if char[0].isprintable() else json.dumps(char[0])[1:-1]


def _cut(text: str) -> str:
    left_out = len(text) - LONGEST_CELL
    return text if left_out <= 0 else f"{text[:LONGEST_CELL]}… ({counted(left_out, 'more character')})"


class Progress:
    """Show events as plain lines, each with its time since the start."""

    def __init__(self, console: Console, title: str) -> None:
        self.console, self.title = console, title
        self.began = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        """Do nothing: there is no live view to end."""

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.console.quiet and event.state != "failed":
            return
        host = f"[{event.host}] " if event.host else ""
        took = f" ({event.elapsed:.1f} s)" if event.elapsed is not None else ""
        first = f"{self._clock()} {MARKS[event.state]} {host}{event.stage}: {_event_text(event)}{took}"
        self.console.err.print(Text("\n".join(self.console.clean_lines((first, *event.lines)))))

    def _clock(self) -> str:
        return f"{time.monotonic() - self.began:6.1f}s"


class LiveProgress(Progress):
    """Show a line per active host and stage, redrawn in place; finished and failed ones stay above."""

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
        """Show an event: update the live view, and print the line of what has ended above it."""
        with self._changing:
            took = self._note(event)
        if event.state not in ("running", "progress"):
            self._live.console.print(self._line(event, "" if took is None else f"{took:.1f} s"), soft_wrap=False)
            if event.lines:
                self._live.console.print(Text("\n".join(self.console.clean_lines(event.lines))), soft_wrap=False)

    def _note(self, event: Event) -> float | None:
        """Remember active work; return the seconds that finished work took, None if not known."""
        key, now = (event.stage, event.host), time.monotonic()
        if event.state in ("running", "progress"):
            self._working[key] = event, self._working.get(key, (event, now))[1]
            return None
        if event.state == "note":
            return event.elapsed
        began = self._working.pop(key, (event, None))[1]
        if not event.host:
            self._working = {other: value for other, value in self._working.items() if other[0] != event.stage}
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
        line.append(f"{event.host or 'local'} ", style="bold")
        line.append(self.console.clean_lines([f"{event.stage}: {_event_text(event)} "])[0], style="")
        return line.append(took, style="dim")


def _event_text(event: Event) -> str:
    percent = f" {event.percent:.0f}%" if event.percent is not None else ""
    return f"{event.text}{percent}" if event.text else event.state
