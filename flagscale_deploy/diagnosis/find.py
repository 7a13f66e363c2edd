"""Search logs for the root cause of a failure: the earliest known cause, else the first other error."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from flagscale_deploy.diagnosis.clocks import Clock
from flagscale_deploy.diagnosis.log_lines import LONGEST, LogLine, earlier, read
from flagscale_deploy.diagnosis.passed import Course, Trouble, passes
from flagscale_deploy.diagnosis.progress import engine_progress
from flagscale_deploy.diagnosis.table import Signature
from flagscale_deploy.diagnosis.weigh import WARNING, WEIGHTS, Weight, is_daemons, weigh, weigh_daemons
from flagscale_deploy.text import one_line

HOST_SECONDS = 30.0
"""CPU time to read the logs of one host, whose lines may be made to take long: some 300 MiB of an engine's."""
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
    """A line that may be the root cause, with its `weight`; the lowest wins."""

    weight: Weight
    rank: int
    at: float | None
    trouble: Trouble
    diagnosis: Diagnosis

    @property
    def order(self) -> tuple[int, str, str, int]:
        return self.rank, self.diagnosis.host, self.diagnosis.file, self.trouble.number


@dataclass(frozen=True)
class _File:
    """What a log has: the earliest candidate of each kind that an engine did not go past, and whether one answers.

    `answers` is None in a log that is not an engine's own.
    """

    candidates: Sequence[_Candidate]
    daemons: bool
    answers: bool | None


def diagnose(
    logs: Iterable[tuple[str, str, Iterable[str]]],
    *,
    addresses: Mapping[str, str] = NO_ADDRESSES,
    clocks: Mapping[str, Clock] = NO_CLOCKS,
    seconds: float = HOST_SECONDS,
) -> Diagnosis | None:
    """Return the root cause in logs given as (host, file, lines); None where no line looks like an error.

    The earliest known cause wins; then the earliest of exceptions and known consequences; then of other lines that call
    themselves errors; then of warnings. What an engine went past is left out. An echo (a connection that closes because
    a process ended) may be logged before the end itself: the end wins whatever the times are. Where a time is not
    known, the earlier entry of the table wins.
    `addresses` maps addresses in log lines to host names; `clocks` are those of the hosts, to correct times by. What
    cannot be read in `seconds` of a host's logs is left out.
    """
    efforts: dict[str, _Effort] = {}
    files = [
        _read(host, file, efforts.setdefault(host, _Effort(seconds)).within(lines), addresses, clocks, efforts[host])
        for host, file, lines in logs
    ]
    engines = [file.answers for file in files if file.answers is not None]
    serving = bool(engines) and all(engines)
    best: dict[tuple[Weight, bool], _Candidate] = {}
    ends: dict[tuple[Weight, bool], _Candidate] = {}
    for candidate in (one for file in files for one in file.candidates if not (serving and _is_minor(one, file))):
        for among in (best, ends) if candidate.diagnosis.level == "consequence" else (best,):
            key = candidate.weight, candidate.at is None
            if key not in among or _before(candidate, among[key]):
                among[key] = candidate
    first = _first(best)
    if first is not None and first.level == "echo":
        first = _first(ends) or first
    unread = ", ".join(host for host, effort in efforts.items() if effort.is_over)
    note = f"logs of {unread} take too long to read: their rest was left out"
    return replace(first, note="; ".join(filter(None, (first.note, note)))) if first is not None and unread else first


class _Effort:
    """The CPU time of this thread that the logs of one host may still take."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._at = time.thread_time()

    @property
    def is_over(self) -> bool:
        """Return whether none is left. It is called often: what goes by in between counts."""
        now = time.thread_time()
        self._left, self._at = self._left - (now - self._at), now
        return self._left <= 0

    def within(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield lines while there is time."""
        self._at = time.thread_time()  # that of other hosts does not count
        for line in lines:
            if self.is_over:
                return
            yield line


def _is_minor(candidate: _Candidate, file: _File) -> bool:
    """Return whether a candidate is no trouble for engines that answer: a warning, or what Ray's daemons log."""
    return candidate.weight >= WARNING or (file.daemons and not candidate.trouble.end)


def _first(best: Mapping[tuple[Weight, bool], _Candidate]) -> Diagnosis | None:
    """Return the best of the lowest weight, by time unless one without a time is nearer to the cause."""
    for weight in WEIGHTS:
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
        weight, _ = weigh(line)
        if weight is not None:
            (exceptions if weight <= 1 else others).setdefault(quoted(line.text))
    return [*exceptions, *others][:most]


def quoted(text: str) -> str:
    """Return a line as it is shown: cut after `LONGEST` characters."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _read(
    host: str,
    file: str,
    lines: Iterable[str],
    addresses: Mapping[str, str],
    clocks: Mapping[str, Clock],
    effort: _Effort,
) -> _File:
    """Read a log. Of candidates that the same steps pass, the earliest is kept: a file is written in order of time."""
    course, candidates, daemons = Course(), _Candidates(effort), is_daemons(file)
    for line in read(lines) if daemons else read(lines, course.read):
        weight, entry = weigh(line)
        if weight is None:
            if not daemons:
                course.read(line.number, line.raw)
            continue
        candidates.drop_passed(course, line.number)
        weight = weigh_daemons(weight, entry) if daemons else weight
        where = addresses.get(line.ip, line.ip) or host
        named = (entry.cause, entry.remedy, entry.name, entry.source, entry.level) if entry else ()
        diagnosis = Diagnosis(where, file, quoted(line.text), *named)
        if where != host:
            diagnosis = replace(diagnosis, note=f"the log of {host} says that it is {where}'s")
        rank = -1 if entry is None else entry.rank
        at = _time_of(line, host, addresses, clocks)
        candidates.add(_Candidate(weight, rank, at, _trouble(line, weight == WARNING, entry), diagnosis))
    candidates.drop_passed(course)
    earliest = candidates.earliest
    well = course.answers and all(candidate.weight >= WARNING for candidate in earliest)
    return _File(earliest, daemons, well if course.is_engine else None)


def _trouble(line: LogLine, warning: bool, entry: Signature | None) -> Trouble:
    stage = engine_progress(line.raw) if warning else None
    end = entry is not None and entry.level in ("consequence", "echo")
    at = line.stamp.at if line.stamp is not None else None
    return Trouble(line.number, line.process, stage.rank if stage else 0, at, warning, end)


class _Candidates:
    """The candidates of a file: the earliest and the latest of each kind."""

    def __init__(self, effort: _Effort) -> None:
        self._effort = effort
        self._kinds: dict[tuple[object, ...], list[_Candidate]] = {}

    @property
    def earliest(self) -> list[_Candidate]:
        """Return the earliest of each weight and table entry, echoes apart."""
        first: dict[tuple[object, ...], _Candidate] = {}
        for candidate, *_ in self._kinds.values():
            undated = candidate.at is None
            key = candidate.weight, candidate.rank if undated else 0, undated, candidate.diagnosis.level == "echo"
            if key not in first or _before(candidate, first[key], same_file=True):
                first[key] = candidate
        return list(first.values())

    def add(self, candidate: _Candidate) -> None:
        trouble, undated = candidate.trouble, candidate.at is None
        kind = candidate.weight, candidate.rank if undated else 0, undated, trouble.process, trouble.stage, trouble.end
        first, *_ = self._kinds.get(kind, [candidate])
        is_first = not undated and _before(candidate, first, same_file=True)
        self._kinds[kind] = [candidate if is_first else first, candidate]

    def drop_passed(self, course: Course, until: float = math.inf) -> None:
        """Drop what the steps up to the line `until` went past."""
        while course.steps and course.steps[0].number < until and not self._effort.is_over:
            step = course.steps.popleft()
            for kind, candidates in list(self._kinds.items()):
                if kept := [candidate for candidate in candidates if not passes(step, candidate.trouble)]:
                    self._kinds[kind] = kept
                else:
                    del self._kinds[kind]


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
        return one.trouble.number < other.trouble.number if same_file else one.order < other.order
    return earlier(one.at, other.at)
