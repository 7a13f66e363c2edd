"""Reads logs for the cause of a failure: a known signature, else the first error that is not a mere consequence."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterable
from dataclasses import dataclass

import yaml


@dataclass(frozen=True)
class Signature:
    """An error text that users meet, what causes it, and what to do. `source` is where the fact comes from."""

    regex: re.Pattern[str]
    cause: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Diagnosis:
    """The root cause in logs: the line, the host and file it stands in, and, if its text is known, cause and remedy."""

    host: str
    file: str
    line: str
    cause: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        said = f"{self.host}: {self.file}: {self.line}"
        said += f"\n    cause: {self.cause}" if self.cause else ""
        return said + (f"\n    → {self.remedy}" if self.remedy else "")


MEASURED = "measured with vLLM 0.32 and Ray 2.60"

_CONSEQUENCE = re.compile(
    r"See root cause above|Engine core initialization failed|EngineDeadError|During handling of|Found ulimit of"
)
_EXCEPTION = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)): \S")
_ERROR = re.compile(r"\b(ERROR|FATAL|CRITICAL)\b|[Ee]rror:|: not found|No such file|Killed|Segmentation fault")


@functools.cache
def signatures() -> tuple[Signature, ...]:
    """The table of `signatures.yaml`, in its order."""
    text = (importlib.resources.files("flagscale_deploy") / "signatures.yaml").read_text(encoding="utf-8")
    return tuple(
        Signature(re.compile(each["pattern"]), each["cause"], each["remedy"], each.get("source", MEASURED))
        for each in yaml.safe_load(text)
    )


def diagnose(logs: Iterable[tuple[str, str, Iterable[str]]]) -> Diagnosis | None:
    """The root cause in logs given as (host, file, lines); None where nothing looks like an error.

    A known signature wins over any other error, and the earlier entry of the table over the later one.
    """
    best: tuple[int, Diagnosis] | None = None
    fallback: tuple[int, Diagnosis] | None = None
    for host, file, lines in logs:
        for line in lines:
            rank, signature = _match(line)
            if signature is not None and (best is None or rank < best[0]):
                best = rank, Diagnosis(host, file, clean(line), signature.cause, signature.remedy)
            if best is None and (weight := _weight(line)) and (fallback is None or weight < fallback[0]):
                fallback = weight, Diagnosis(host, file, clean(line))
    found = best or fallback
    return found[1] if found else None


def error_lines(lines: Iterable[str], most: int = 8) -> list[str]:
    """The lines that carry an error, consequences left out, the first ones first; each only once.

    What an exception says comes before all else: vLLM logs each line of a traceback as an error.
    """
    exceptions: dict[str, None] = {}
    others: dict[str, None] = {}
    for line in lines:
        weight = 1 if _match(line)[1] is not None else _weight(line)
        if weight:
            (exceptions if weight == 1 else others).setdefault(clean(line))
    return [*exceptions, *others][:most]


def clean(line: str) -> str:
    """A log line without the process and logger prefixes that vLLM puts before it."""
    return (
        re.sub(r"^(?:\x1b\[[0-9;]*m|\([^)]*pid=[^)]*\)|(?:ERROR|INFO|WARNING) [\d-]+ [\d:.]+ \[[^\]]*\]|\s)+", "", line)
        or line
    )


def _match(line: str) -> tuple[int, Signature | None]:
    known = () if _CONSEQUENCE.search(line) else signatures()
    for rank, signature in enumerate(known):
        if signature.regex.search(line):
            return rank, signature
    return len(known), None


def _weight(line: str) -> int:
    """1 for an exception's own line, 2 for something that calls itself an error, 0 for neither."""
    if _CONSEQUENCE.search(line):
        return 0
    return 1 if _EXCEPTION.search(line) else 2 if _ERROR.search(line) else 0
