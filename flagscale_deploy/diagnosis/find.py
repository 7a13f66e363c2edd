"""Reads logs for the cause of a failure: the earliest line that is a known cause, else the first error that follows
from nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flagscale_deploy.diagnosis.clocks import Clock
from flagscale_deploy.diagnosis.log_lines import LONGEST, LogLine, earlier, read
from flagscale_deploy.diagnosis.table import Signature, match

SAME_SECONDS = 1e-6
"""Times that differ by less are the same: they are floats, put right by floats."""
NOTHING: Mapping[str, str] = MappingProxyType({})
IN_STEP: Mapping[str, Clock] = MappingProxyType({})


@dataclass(frozen=True)
class Diagnosis:
    """The root cause in logs: the line, the host and file it stands in, and, if its text is known, cause and remedy.

    `signature` is its entry's name in the table, `source` where the table has it from,
    `level` whether it is a cause, a consequence, or an echo of one.
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
    """What makes it doubtful."""

    def __str__(self) -> str:
        said = f"{self.host}: {self.file}: {self.line}"
        said += f"\n    cause: {self.cause}" if self.cause else ""
        return said + (f"\n    → {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class _Candidate:
    """A line that may be the one. `weight`: 0 a known cause, 1 an exception or a known consequence, 2 something else
    that calls itself an error, or a consequence in the logs of Ray's daemons (a closed socket, before anybody knows
    whose), 3 what else those call an error: they have many that harm nobody."""

    weight: int
    rank: int
    at: float | None
    number: int
    found: Diagnosis

    @property
    def order(self) -> tuple[int, str, str, int]:
        return self.rank, self.found.host, self.found.file, self.number


_EXCEPTION = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)): \S")
_ERROR = re.compile(r"\b(ERROR|FATAL|CRITICAL)\b|[Ee]rror:|: not found|No such file")
_DAEMON = re.compile(
    r"(raylet|gcs_server|dashboard|monitor|log_monitor|runtime_env|agent-|ray_client|python-core|io-worker|event)"
)


def diagnose(
    logs: Iterable[tuple[str, str, Iterable[str]]],
    *,
    addresses: Mapping[str, str] = NOTHING,
    clocks: Mapping[str, Clock] = IN_STEP,
) -> Diagnosis | None:
    """The root cause in logs given as (host, file, lines); None where nothing looks like an error.

    Known causes come before all else, the earliest of them first; then exceptions and known consequences, whichever is
    earlier; then what else calls itself an error. What others see of an end (an echo: a connection that closes) may be
    written down before anybody has told the end itself, and gives way to it whatever the times are. Where a time is not
    known the earlier entry of the table wins.
    `addresses` names the hosts behind addresses that lines speak of; `clocks` are those of hosts, by which times are
    put right.
    """
    best: dict[tuple[int, bool], _Candidate] = {}
    ends: dict[tuple[int, bool], _Candidate] = {}
    for host, file, lines in logs:
        for found in _in_file(host, file, lines, addresses, clocks):
            for among in (best, ends) if found.found.level == "consequence" else (best,):
                key = found.weight, found.at is None
                if key not in among or _before(found, among[key]):
                    among[key] = found
    first = _first(best)
    if first is not None and first.level == "echo":
        return _first(ends) or first
    return first


def _first(best: Mapping[tuple[int, bool], _Candidate]) -> Diagnosis | None:
    """The best of the lowest weight, by time unless one without a time is nearer to the cause."""
    for weight in range(4):
        dated, undated = best.get((weight, False)), best.get((weight, True))
        if dated is not None:
            return (undated if undated is not None and undated.rank < dated.rank else dated).found
        if undated is not None:
            return undated.found
    return None


def error_lines(lines: Iterable[str], most: int = 8) -> list[str]:
    """The lines that carry an error, what says nothing of the cause left out, the first ones first; each only once.

    What an exception says comes before all else: vLLM logs each line of a traceback as an error.
    """
    exceptions: dict[str, None] = {}
    others: dict[str, None] = {}
    for line in read(lines):
        weight, _ = _weigh(line)
        if weight is not None:
            (exceptions if weight <= 1 else others).setdefault(quoted(line.text))
    return [*exceptions, *others][:most]


def quoted(text: str) -> str:
    """A line as it is shown."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _in_file(
    host: str, file: str, lines: Iterable[str], addresses: Mapping[str, str], clocks: Mapping[str, Clock]
) -> Iterable[_Candidate]:
    """The earliest candidate of each weight and entry: a file is written in the order of time."""
    first: dict[tuple[int, int, bool], _Candidate] = {}
    daemon = _DAEMON.match(file.rpartition("/")[2]) is not None
    for line in read(lines):
        weight, known = _weigh(line)
        if weight is None:
            continue
        if daemon and (known is None or known.level in ("consequence", "echo")):
            weight = 3 if known is None else 2
        rank = -1 if known is None else known.rank
        at = _time_of(line, host, addresses, clocks)
        where = addresses.get(line.ip, line.ip) or host
        named = (known.cause, known.remedy, known.name, known.source, known.level) if known else ()
        candidate = _Candidate(weight, rank, at, line.number, Diagnosis(where, file, quoted(line.text), *named))
        key = weight, rank if at is None else 0, at is None
        if key not in first or (at is not None and _before(candidate, first[key], same_file=True)):
            first[key] = candidate
    return first.values()


def _time_of(line: LogLine, host: str, addresses: Mapping[str, str], clocks: Mapping[str, Clock]) -> float | None:
    """When a line in a log of `host` was written, in UTC by the operator's clock. What Ray forwards from another node
    bears that node's time."""
    if line.stamp is None:
        return None
    clock = clocks.get(addresses.get(line.stamp.ip, host)) or clocks.get(host) or Clock()
    return line.stamp.at - (clock.skew if line.stamp.utc else clock.ahead)


def _before(one: _Candidate, other: _Candidate, same_file: bool = False) -> bool:
    """Whether a candidate is nearer to the cause than another of its weight; both have a time, or neither.

    Within a second the order of the lines decides in a file: vLLM's times are whole seconds, Ray's and torch's are not.
    """
    if one.at is None or other.at is None or abs(one.at - other.at) < (1.0 if same_file else SAME_SECONDS):
        return one.number < other.number if same_file else one.order < other.order
    return earlier(one.at, other.at)


def _weigh(line: LogLine) -> tuple[int | None, Signature | None]:
    """How near to a cause a line is (None: not an error at all), and its entry in the table."""
    known = match(line.text)
    if known is not None:
        return {"cause": 0, "consequence": 1, "echo": 1, "never": None}[known.level], known
    if line.minor:
        return None, None
    return (1, None) if _EXCEPTION.search(line.text) else (2, None) if _ERROR.search(line.raw) else (None, None)
