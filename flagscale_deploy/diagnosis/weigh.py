"""Weigh how near a line of a log is to the root cause, by its text alone."""

from __future__ import annotations

import re
from typing import Literal

from flagscale_deploy.diagnosis.log_lines import LogLine
from flagscale_deploy.diagnosis.table import Signature, match

Weight = Literal[0, 1, 2, 3, 4]
"""The lowest wins. 0: a known cause. 1: an exception or a known consequence. 2: another line that calls itself an
error, or a consequence in the logs of Ray's daemons (a closed socket whose owner is not known yet). 3: a warning with a
known text. 4: other errors in the logs of Ray's daemons, which write many harmless ones."""
WARNING: Weight = 3
WEIGHTS: tuple[Weight, ...] = (0, 1, 2, 3, 4)

_EXCEPTION = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)): \S")
_ERROR = re.compile(r"\b(ERROR|FATAL|CRITICAL)\b|[Ee]rror:|: not found|No such file")
_STATISTIC = re.compile(r"\[state-dump\]|: \d+(?:\.\d+)?$")
"""A line of Ray's statistics, such as "num chunks received failed / plasma error: 0"."""
_RETRIED = re.compile(r"thrown while requesting (?:HEAD|GET) |[Rr]etrying (?:\(|(?:in|after) \d)|\[Retry \d")
"""A request that is tried again, as huggingface_hub and urllib3 log it, with or without a level."""
_DAEMON = re.compile(
    r"(raylet|gcs_server|dashboard|monitor|log_monitor|runtime_env|agent-|ray_client|python-core|io-worker|event)"
)


def weigh(line: LogLine) -> tuple[Weight | None, Signature | None]:
    """Return the weight of a line (None: not an error at all), and its entry in the table."""
    entry = match(line.text)
    if entry is not None and entry.level == "never":
        return None, entry
    if entry is not None:
        return (WARNING if _is_warning(line, entry) else 0 if entry.level == "cause" else 1), entry
    if line.minor:
        return None, None
    if line.raised or _EXCEPTION.search(line.text):
        return 1, None
    return (2 if _ERROR.search(line.raw) and not _STATISTIC.search(line.text) else None), None


def _is_warning(line: LogLine, entry: Signature) -> bool:
    """Return whether what logs the line goes on; that a process ended is said with warnings, too."""
    warns = line.warning or _RETRIED.search(line.text) is not None
    return entry.level == "warning" or (warns and entry.level != "consequence")


def is_daemons(file: str) -> bool:
    """Return whether a file is a log of one of Ray's daemons."""
    return _DAEMON.match(file.rpartition("/")[2]) is not None


def weigh_daemons(weight: Weight, entry: Signature | None) -> Weight:
    """Return the weight of a line with this weight in a log of Ray's daemons."""
    return 4 if entry is None else 2 if weight == 1 else weight
