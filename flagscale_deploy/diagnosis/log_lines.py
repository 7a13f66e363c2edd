"""Log lines as vLLM, Ray, torch and NCCL write them: who says what, when, on which host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import NamedTuple

_PREFIX = re.compile(
    r"(?:(?:\x1b\[[0-9;]*m|\([^()]*\bpid=[^)]*\)|\(raylet[^)]*\)|\[rank\d+\]:"
    r"|(?:ERROR|INFO|WARNING|DEBUG|CRITICAL) [\d-]+ [\d:.]+ (?:\[[^\]]*\]|\S+:\d+\])) ?)+"
)
"""What vLLM and Ray put before a line; one blank may follow each part, what follows that is the line's own indent."""
_BARE = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)")
"""An exception that says nothing: an assertion without words."""
_MARKS = re.compile(r"[\s^~]+")
"""What Python 3.11 draws below a line of a traceback."""
_SPEAKER = re.compile(r"\([^()]*\bpid=[^)]*\)")
_IP = re.compile(
    r"[(,] ?ip=([0-9a-fA-F.:]+)[,)]|\bIP(?: address)?: (\d+(?:\.\d+){3})\b"
    r"|\b(?:and address:|address =) (\d+(?:\.\d+){3})\b"
)
_DETAIL = re.compile(r"(class_name|actor_id|pid|name|namespace|ip): (\S+)")
"""What Ray writes below the exception of an actor."""
_QUIET = re.compile(
    r"\b(?:INFO|DEBUG) \d\d-\d\d |^(?:INFO|DEBUG): |\d \d+:\d\d:\d\d,\d+\s+(?:INFO|DEBUG) "
    r"|\[\d{4}-\d\d-\d\d [\d:,.]+ [ID] |\[I\d{3,4} |NCCL INFO |\t(?:INFO|DEBUG) |\.\d+Z? (?:INFO|DEBUG)\b"
)
_WARNING = re.compile(r"\bWARNING \d\d-\d\d |\[\d{4}-\d\d-\d\d [\d:,.]+ W |\tWARNING |\b\w*Warning: ")
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
"""Ray and Python's logging (with a year), vLLM, torch's C++. It is the host's local time, unless UTC is said."""
_YEAR = 366 * 86400.0
LONGEST = 500
"""What is quoted of a line, in characters: Ray writes essays."""


class Stamp(NamedTuple):
    """The time of a line: `at` in seconds since New Year, by the clock of the node at the address `ip` ("": of the host
    that wrote the file), in its local time or in UTC."""

    at: float
    utc: bool
    ip: str


@dataclass(frozen=True)
class LogLine:
    """A line that may be an error: INFO and the frames of tracebacks are left out.

    `raw` is the whole line, `text` is without prefixes, and of an exception that says nothing with the line of the
    program that raised it; `stamp` the time of the line itself or the nearest one before
    it; `ip` the address of the node that said it, if that is told.
    """

    number: int
    raw: str
    text: str
    stamp: Stamp | None
    ip: str
    minor: bool
    """A warning, or a further line of a message: an error only if its text is known."""


def read(lines: Iterable[str]) -> Iterator[LogLine]:
    """The lines of one file that may be errors; an actor's exception with the address that stands below it."""
    held: LogLine | None = None
    for line in _possible(lines):
        if held is not None and (detail := _DETAIL.fullmatch(line.text)):
            held = replace(held, ip=detail[2]) if detail[1] == "ip" else held
            continue
        if held is not None:
            yield held
        held = line
    if held is not None:
        yield held


def _possible(lines: Iterable[str]) -> Iterator[LogLine]:
    """The lines of one file that may be errors, each by itself."""
    latest: Stamp | None = None
    quiet = ""
    """The latest line of those that are nothing but a time: most of a log, so that it is not looked at more closely."""
    tracing: dict[str, str] = {}
    """Speakers that are in the middle of a traceback, with the address that it came from."""
    code: dict[str, str] = {}
    """The line of the program that each speaker's traceback shows last."""
    for number, line in enumerate(lines):
        if _QUIET.search(line):
            quiet = line
            continue
        latest = _stamp(line) or _stamp(quiet) or latest
        quiet = ""
        head, body = _split(line)
        if not body.strip():
            continue
        speaker = " ".join(_SPEAKER.findall(head))
        if "Traceback (most recent call last)" in body or "RayTaskError(" in body or body.startswith('  File "'):
            tracing[speaker] = _address(line) or tracing.get(speaker, "")
        elif speaker not in tracing:
            minor = body[0].isspace() or _WARNING.search(line) is not None
            yield LogLine(number, line, body.strip(), latest, _address(line), minor)
        elif not body[0].isspace():
            text, shown = body.strip(), code.pop(speaker, "")
            if shown and _BARE.fullmatch(text):
                text = f"{text}: {shown}"
            yield LogLine(number, line, text, latest, tracing.pop(speaker) or _address(line), minor=False)
        elif not _MARKS.fullmatch(body):
            code[speaker] = body.strip()


def clean(line: str) -> str:
    """A log line without the process and logger prefixes that vLLM and Ray put before it."""
    return _split(line)[1].strip() or line


def earlier(one: float, other: float) -> bool:
    """Whether a time of the year lies before another one; what is half a year away is New Year between them."""
    return one < other if abs(one - other) < _YEAR / 2 else one > other


def _split(line: str) -> tuple[str, str]:
    found = _PREFIX.match(line)
    return (found[0], line[found.end() :]) if found else ("", line)


def _address(line: str) -> str:
    found = _IP.search(line)
    return next(filter(None, found.groups()), "") if found else ""


def _stamp(line: str) -> Stamp | None:
    start = line[:200]
    for pattern in _STAMPS:
        if found := pattern.search(start):
            number = {name: int(found[name]) for name in ("month", "day", "hour", "minute")}
            second = float(found["second"].replace(",", "."))
            try:
                day = datetime(2000, number["month"], number["day"], tzinfo=timezone.utc)
            except ValueError:
                continue
            elapsed = (day - datetime(2000, 1, 1, tzinfo=timezone.utc)).total_seconds()
            at = elapsed + number["hour"] * 3600 + number["minute"] * 60 + second
            speaker = _SPEAKER.search(start, 0, found.start())
            return Stamp(at, found.groupdict().get("utc") is not None, _address(speaker[0]) if speaker else "")
    return None
