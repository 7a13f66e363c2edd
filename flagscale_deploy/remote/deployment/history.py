"""Keep what became of restarts: `history.jsonl` in the state directory, an event a line, the newest 1,000."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, cast

from flagscale_deploy.remote.system import files, json_files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.status import RestartEvent

NAME = "history.jsonl"
LINES = 1000
LARGEST = 8 << 20
"""Bytes of a file with that many lines, and of no more than it."""
SHAPE = {
    "schema": int, "deployment": str, "server": str, "host": str, "event": str, "reason": str, "attempt": int,
    "max": int, "evidence": str, "time": (int, float),
}  # fmt: skip


def append(directory: Path, event: RestartEvent) -> None:
    """Add an event; forget the oldest ones. Several supervisors may do so at once. Raises OSError."""
    with os.fdopen(os.open(str(directory / "history.lock"), files.LOCK, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = [*_lines(directory / NAME)[1 - LINES :], json.dumps(event)]
        files.write_atomically(directory / NAME, "".join(line + "\n" for line in lines))


def last(directory: Path) -> Optional[RestartEvent]:
    """Return the newest event; None where there is none that can be read."""
    lines = _lines(directory / NAME)
    try:
        event = json_files.parse_object(lines[-1]) if lines else {}
    except ValueError:
        return None
    whole = SHAPE.keys() <= event.keys() and not json_files.mismatch(event, SHAPE)
    return cast("RestartEvent", event) if whole else None


def _lines(path: Path) -> List[str]:
    """Return the lines that are there; none where the file is absent, or is not one that this module has written."""
    try:
        return files.read_whole(str(path), LARGEST).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
