"""Parse log lines as vLLM, Ray, torch and NCCL write them: the process, the time and the host of each."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import NamedTuple

_PREFIX = re.compile(
    r"(?:(?:\x1b\[[0-9;]*m|\([^()]{0,100}\bpid=[^)]{0,200}\)|\(raylet[^)]{0,200}\)|\[rank\d+\]:"
    r"|(?:ERROR|INFO|WARNING|DEBUG|CRITICAL) [\d-]+ [\d:.]+ (?:\[[^\]]*\]|\S+:\d+\])) ?)+"
)
"""Prefixes of vLLM and Ray; one blank may follow each, further ones are the line's own indent."""
_BARE = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)")
"""An exception without a message, for example an assertion."""
_NAMED = re.compile(r"(?!KeyboardInterrupt\b|SystemExit\b)(?:(?:\w+\.)*[A-Z]\w*|(?:\w+\.)+\w+)(?::|$)")
"""An exception at the end of a traceback, whatever its name."""
_MARKS = re.compile(r"[\s^~]+")
"""The marks that Python 3.11 prints below a line of a traceback."""
_REMOTE = re.compile(r"RayTaskError\(|ActorDiedError: The actor died because of an error raised in its creation task")
"""What Ray prints above the exception of another process."""
_PROCESS = re.compile(r"\([^()]{0,100}\bpid=[^)]{0,200}\)")
_IP = re.compile(
    r"[(,] ?ip=([0-9a-fA-F.:]+)[,)]|\bIP(?: address)?: (\d+(?:\.\d+){3})\b"
    r"|\b(?:and address:|address =) (\d+(?:\.\d+){3})\b"
)
_DETAIL = re.compile(r"(class_name|actor_id|pid|name|namespace|ip): (\S+)")
"""What Ray prints below the exception of an actor."""
_QUIET = re.compile(
    r"\b(?:INFO|DEBUG) \d\d-\d\d |(?:^|\) )(?:INFO|DEBUG): |\d \d+:\d\d:\d\d,\d+\s+(?:INFO|DEBUG) "
    r"|\[\d{4}-\d\d-\d\d [\d:,.]+ [ID] |\[I\d{3,4} |NCCL INFO |\t(?:INFO|DEBUG) |\.\d+Z? (?:INFO|DEBUG)\b"
)
_LEVEL = re.compile(
    r"(?P<warning>(?<!NCCL )\bWARN(?:ING)?\b|\[\d{4}-\d\d-\d\d [\d:,.]+ W |\[W\d{3,4} |\b\w*Warning: )"
    r"|\b(?:ERROR|CRITICAL|FATAL)\b|\[\d{4}-\d\d-\d\d [\d:,.]+ [EC] |\[[EF]\d{3,4} "
)
"""The level that a program writes before its message."""
_LEVEL_WITHIN = 200
_DUMP = "(most recent call first)"
_THREAD = re.compile(r"(?:Current thread|Thread) 0x")
_VALIDATION = re.compile(r"\d validation errors? for \w+$")
_STAMPS = (
    re.compile(
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[ T](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d(?:[.,]\d+)?)"
        r"(?P<utc>Z|\+00:?00)?"
    ),
    re.compile(
        r"(?:ERROR|INFO|WARNING|DEBUG|CRITICAL) (?P<month>\d\d)-(?P<day>\d\d) "
        r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d(?:\.\d+)?)"
    ),
    re.compile(r"\[[EWIF](?P<month>\d\d?)(?P<day>\d\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d(?:\.\d+)?) "),
)
"""Ray and Python's logging (with a year), vLLM, torch's C++. Times are the host's local time unless marked as UTC."""
_YEAR = 366 * 86400.0
LONGEST = 500
"""Quoted characters of a line: some lines of Ray are very long."""
MATCHED = 8192
"""Characters of a line that patterns are tried on, half from its beginning and half from its end."""


class Stamp(NamedTuple):
    """The time of a line: `at` in seconds since New Year, in local time or in UTC.

    It is by the clock of the node with the address `ip`, or of the host that wrote the file where that is "".
    """

    at: float
    utc: bool
    ip: str


@dataclass(frozen=True)
class LogLine:
    """A line that may be an error: INFO and the frames of tracebacks are left out.

    `raw` is the whole line. `text` has no prefixes; to an exception without a message, the source line that raised it
    is added. `stamp` is the time of the line itself or of the nearest one before it. `ip` is the address of the node
    that logged it, where the line has one.
    """

    number: int
    raw: str
    text: str
    stamp: Stamp | None
    ip: str
    process: str
    """The processes in the line's prefix, "" where it has none."""
    warning: bool
    indented: bool
    raised: bool
    """The exception that ends a traceback."""

    @property
    def minor(self) -> bool:
        """Return whether it is a warning or a continuation line: an error only if its text is known."""
        return self.warning or self.indented


def _pass_over(number: int, line: str) -> None:
    """Do nothing with a line that is no error."""


def read(lines: Iterable[str], pass_over: Callable[[int, str], None] = _pass_over) -> Iterator[LogLine]:
    """Yield the lines of a file that may be errors, with what stands below them and belongs to them.

    `pass_over` is called with each INFO line and its number, before a line above it is yielded at the latest.
    """
    held: LogLine | None = None
    for line in _possible(lines, pass_over):
        joined = held and _joined(held, line)
        if joined is None and line.text.startswith('File "'):
            continue
        if held is not None and joined is None:
            yield held
        held = joined or line
    if held is not None:
        yield held


def _joined(held: LogLine, line: LogLine) -> LogLine | None:
    """Return a line with what one below it adds: an actor's address, the place of a crash, an exception's message.

    Returns None where that one is not part of it.
    """
    if detail := _DETAIL.fullmatch(line.text):
        return replace(held, ip=detail[2]) if detail[1] == "ip" else held
    if held.text.startswith("Fatal Python error: "):
        if _THREAD.match(line.text):
            return held
        if line.text.startswith('File "'):
            return held if ', File "' in held.text else replace(held, text=f"{held.text}, {line.text}")
    if held.text.startswith("terminate called") and line.text.startswith("what():"):
        return replace(held, text=f"{held.text}, {line.text}")
    unsaid = held.text.endswith(":") if held.raised else False
    if (
        (unsaid or (line.indented and _VALIDATION.search(held.text)))
        and line.process == held.process
        and len(held.text) < LONGEST
    ):
        return replace(
            held, text=f"{held.text} {line.text}" if held.text.endswith(":") else f"{held.text}: {line.text}"
        )
    return None


def _possible(lines: Iterable[str], pass_over: Callable[[int, str], None]) -> Iterator[LogLine]:
    """Yield the lines of a file that may be errors, each by itself."""
    latest: Stamp | None = None
    quiet = ""
    """The latest INFO line; its time is parsed only if it is needed, since most lines of a log are of this kind."""
    tracing: dict[str, str] = {}
    """Processes that are in the middle of a traceback, with the address that it came from."""
    code: dict[str, str] = {}
    """The last source line in the traceback of each process."""
    dumping: str | None = None
    """The process whose stacks are dumped after a crash: no exception ends them."""
    for number, line in enumerate(map(matched_part, lines)):
        if _QUIET.search(line):
            quiet = line
            pass_over(number, line)
            continue
        latest = stamp_of(line) or stamp_of(quiet) or latest
        quiet = ""
        head, body = _split(line)
        if not body.strip():
            continue
        process = _names(head)
        level = _LEVEL.search(line, 0, _LEVEL_WITHIN)
        warning = level is not None and level["warning"] is not None
        is_frame = body.startswith('  File "')
        if dumping == process and is_frame:
            yield LogLine(number, line, body.strip(), latest, _address(line), process, True, True, False)
        elif is_frame or "Traceback (most recent call last)" in body or _REMOTE.search(body):
            tracing[process] = _address(line) or tracing.get(process, "")
        elif process not in tracing:
            dumping = process if _DUMP in body else None
            indented = body[0].isspace()
            yield LogLine(number, line, body.strip(), latest, _address(line), process, warning, indented, False)
        elif not body[0].isspace():
            text, shown = body.strip(), code.pop(process, "")
            if shown and _BARE.fullmatch(text):
                text = f"{text}: {shown}"
            ip, raised = tracing.pop(process) or _address(line), _NAMED.match(text) is not None
            yield LogLine(number, line, text, latest, ip, process, warning, False, raised)
        elif not _MARKS.fullmatch(body):
            code[process] = body.strip()


def matched_part(line: str) -> str:
    """Return the line without the middle of a longer one: whoever sends a request may choose what is logged."""
    return line if len(line) <= MATCHED else f"{line[: MATCHED // 2]} … {line[-MATCHED // 2 :]}"


def clean(line: str) -> str:
    """Return a log line without the process and logger prefixes of vLLM and Ray."""
    line = matched_part(line)
    return _split(line)[1].strip() or line


def process_of(line: str) -> str:
    """Return the processes that a line's prefix names, "" where it has none."""
    return _names(_split(line[:MATCHED])[0])


@functools.lru_cache
def _names(prefix: str) -> str:
    return " ".join(_PROCESS.findall(prefix))


def earlier(one: float, other: float) -> bool:
    """Return whether a time of the year lies before another; half a year or more between them means New Year."""
    return one < other if abs(one - other) < _YEAR / 2 else one > other


def _split(line: str) -> tuple[str, str]:
    match = _PREFIX.match(line)
    return (match[0], line[match.end() :]) if match else ("", line)


def _address(line: str) -> str:
    match = _IP.search(line)
    return next(filter(None, match.groups()), "") if match else ""


def stamp_of(line: str) -> Stamp | None:
    """Return the time at the beginning of a line, None where it has none."""
    start = line[:200]
    for pattern in _STAMPS:
        if match := pattern.search(start):
            number = {name: int(match[name]) for name in ("month", "day", "hour", "minute")}
            second = float(match["second"].replace(",", "."))
            try:
                day = datetime(2000, number["month"], number["day"], tzinfo=timezone.utc)
            except ValueError:
                continue
            elapsed = (day - datetime(2000, 1, 1, tzinfo=timezone.utc)).total_seconds()
            at = elapsed + number["hour"] * 3600 + number["minute"] * 60 + second
            process = _PROCESS.search(start, 0, match.start())
            return Stamp(at, match.groupdict().get("utc") is not None, _address(process[0]) if process else "")
    return None
