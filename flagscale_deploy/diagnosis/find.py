"""Search logs for the root cause of a failure: the earliest known cause, else the first other error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flagscale_deploy.diagnosis.clocks import Clock
from flagscale_deploy.diagnosis.log_lines import LONGEST, LogLine, earlier, read
from flagscale_deploy.diagnosis.table import Signature, match
from flagscale_deploy.text import one_line

SAME_SECONDS = 1e-6
"""Times that differ by less are equal: they are floats, corrected by floats."""
NO_ADDRESSES: Mapping[str, str] = MappingProxyType({})
NO_CLOCKS: Mapping[str, Clock] = MappingProxyType({})


@dataclass(frozen=True)
class Diagnosis:
    """The root cause in logs: the line, its host and file, and, if its text is known, cause and remedy.

    `signature` is the name of its entry in the table, `source` where the entry's facts come from, `level` whether it is
    a cause, a consequence, or an echo of one.
    """

    host: str
    file: str
    line: str
    cause: str = ""
    remedy: str = ""
    signature: str = ""
    source: str = ""
    level: str = ""
    note: str = ""
    """Why it may be wrong."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Return host, file and line, with cause and remedy below."""
        below = (self.cause and f"    cause: {self.cause}", self.remedy and f"    → {self.remedy}")
        return (one_line(f"{self.host}: {self.file}: {self.line}"), *filter(None, below))

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class _Candidate:
    """A line that may be the root cause, with its `weight`; the lowest wins.

    0: a known cause. 1: an exception or a known consequence. 2: another line that calls itself an error, or a
    consequence in the logs of Ray's daemons (a closed socket whose owner is not known yet). 3: other errors in the logs
    of Ray's daemons, which write many harmless ones.
    """

    weight: int
    rank: int
    at: float | None
    number: int
    diagnosis: Diagnosis

    @property
    def order(self) -> tuple[int, str, str, int]:
        return self.rank, self.diagnosis.host, self.diagnosis.file, self.number


_EXCEPTION = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)): \S")
_ERROR = re.compile(r"\b(ERROR|FATAL|CRITICAL)\b|[Ee]rror:|: not found|No such file")
_DAEMON = re.compile(
    r"(raylet|gcs_server|dashboard|monitor|log_monitor|runtime_env|agent-|ray_client|python-core|io-worker|event)"
)


def diagnose(
    logs: Iterable[tuple[str, str, Iterable[str]]],
    *,
    addresses: Mapping[str, str] = NO_ADDRESSES,
    clocks: Mapping[str, Clock] = NO_CLOCKS,
) -> Diagnosis | None:
    """Return the root cause in logs given as (host, file, lines); None where no line looks like an error.

    The earliest known cause wins; then the earliest of exceptions and known consequences; then of other lines that call
    themselves errors. An echo (a connection that closes because a process ended) may be logged before the end itself:
    the end wins whatever the times are. Where a time is not known, the earlier entry of the table wins.
    `addresses` maps addresses in log lines to host names; `clocks` are those of the hosts, to correct times by.
    """
    best: dict[tuple[int, bool], _Candidate] = {}
    ends: dict[tuple[int, bool], _Candidate] = {}
    for host, file, lines in logs:
        for candidate in _candidates(host, file, lines, addresses, clocks):
            for among in (best, ends) if candidate.diagnosis.level == "consequence" else (best,):
                key = candidate.weight, candidate.at is None
                if key not in among or _before(candidate, among[key]):
                    among[key] = candidate
    first = _first(best)
    if first is not None and first.level == "echo":
        return _first(ends) or first
    return first


def _first(best: Mapping[tuple[int, bool], _Candidate]) -> Diagnosis | None:
    """Return the best of the lowest weight, by time unless one without a time is nearer to the cause."""
    for weight in range(4):
        dated, undated = best.get((weight, False)), best.get((weight, True))
        if dated is not None:
            return (undated if undated is not None and undated.rank < dated.rank else dated).diagnosis
        if undated is not None:
            return undated.diagnosis
    return None


def error_lines(lines: Iterable[str], most: int = 8) -> list[str]:
    """Return the lines that carry an error, each once and in order, except those that say nothing about the cause.

    Exceptions come first: vLLM logs each line of a traceback as an error.
    """
    exceptions: dict[str, None] = {}
    others: dict[str, None] = {}
    for line in read(lines):
        weight, _ = _weigh(line)
        if weight is not None:
            (exceptions if weight <= 1 else others).setdefault(quoted(line.text))
    return [*exceptions, *others][:most]


def quoted(text: str) -> str:
    """Return a line as it is shown: cut after `LONGEST` characters."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _candidates(
    host: str, file: str, lines: Iterable[str], addresses: Mapping[str, str], clocks: Mapping[str, Clock]
) -> Iterable[_Candidate]:
    """Return the earliest candidate of each weight and table entry: a file is written in the order of time."""
    first: dict[tuple[int, int, bool], _Candidate] = {}
    daemon = _DAEMON.match(file.rpartition("/")[2]) is not None
    for line in read(lines):
        weight, entry = _weigh(line)
        if weight is None:
            continue
        if daemon and (entry is None or entry.level in ("consequence", "echo")):
            weight = 3 if entry is None else 2
        rank = -1 if entry is None else entry.rank
        at = _time_of(line, host, addresses, clocks)
        where = addresses.get(line.ip, line.ip) or host
        named = (entry.cause, entry.remedy, entry.name, entry.source, entry.level) if entry else ()
        candidate = _Candidate(weight, rank, at, line.number, Diagnosis(where, file, quoted(line.text), *named))
        key = weight, rank if at is None else 0, at is None
        if key not in first or (at is not None and _before(candidate, first[key], same_file=True)):
            first[key] = candidate
    return first.values()


def _time_of(line: LogLine, host: str, addresses: Mapping[str, str], clocks: Mapping[str, Clock]) -> float | None:
    """Return when a line in a log of `host` was written, in UTC by the operator's clock.

    Lines that Ray forwards from another node bear that node's time.
    """
    if line.stamp is None:
        return None
    clock = clocks.get(addresses.get(line.stamp.ip, host)) or clocks.get(host) or Clock()
    return line.stamp.at - (clock.skew if line.stamp.utc else clock.ahead)


def _before(one: _Candidate, other: _Candidate, same_file: bool = False) -> bool:
    """Return whether a candidate is nearer to the cause than another of its weight; both have a time, or neither.

    Within a file and a second the order of lines decides: vLLM's times are whole seconds, Ray's and torch's are not.
    """
    if one.at is None or other.at is None or abs(one.at - other.at) < (1.0 if same_file else SAME_SECONDS):
        return one.number < other.number if same_file else one.order < other.order
    return earlier(one.at, other.at)


def _weigh(line: LogLine) -> tuple[int | None, Signature | None]:
    """Return the weight of a line (None: not an error at all), and its entry in the table."""
    entry = match(line.text)
    if entry is not None:
        return {"cause": 0, "consequence": 1, "echo": 1, "never": None}[entry.level], entry
    if line.minor:
        return None, None
    return (1, None) if _EXCEPTION.search(line.text) else (2, None) if _ERROR.search(line.raw) else (None, None)
