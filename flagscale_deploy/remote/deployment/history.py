"""Keep what became of a deployment on this host: `history.jsonl` in the state directory, an event a line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, cast

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files, json_files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.history import HistoryEvent
    from flagscale_deploy.remote.messages.program import Target

NAME = "history.jsonl"
SCHEMA = 1
LINES, BYTES = 1000, 4 << 20
"""As much is kept, the newest lines."""
LONGEST = 64 << 10
"""Characters of a line; the command lines of a run are left out where they would make it longer."""
_NUMBER = (int, float)
_NEEDED = {
    "schema": int, "deployment": str, "host": str, "event": str, "server": str, "reason": str, "time": _NUMBER,
}  # fmt: skip
_SHAPE = {**_NEEDED, "run_id": str, "by": str, "argv": {"": [str]}, "attempt": int, "max": int, "evidence": str,
          "took": _NUMBER}  # fmt: skip


def event_of(target: Target, event: str, **more: object) -> Dict[str, object]:
    """Return an event of a deployment, now."""
    return {
        "schema": SCHEMA, "deployment": target["deployment"], "host": target["host"], "event": event, "server": "",
        "reason": "", **more, "time": time.time(),
    }  # fmt: skip


def note(target: Target, event: str, **more: object) -> None:
    """Add an event of a deployment, now; a full disk costs no act its end."""
    content = event_of(target, event, **more)
    if len(json.dumps(content)) > LONGEST:
        content.pop("argv", None)
    with contextlib.suppress(OSError):
        append(state.directory(target["deployment"], target["host"]), content)


def note_once(target: Target, event: str, run_id: str, **more: object) -> None:
    """Note an event of a run or an update, unless that is done."""
    events = read(state.directory(target["deployment"], target["host"]))
    if not any((before["event"], before.get("run_id")) == (event, run_id) for before in events):
        note(target, event, run_id=run_id, **more)


def append(directory: Path, event: Mapping[str, object]) -> None:
    """Add an event; forget the oldest ones. Several programs may do so at once. Raises OSError."""
    with os.fdopen(os.open(str(directory / "history.lock"), files.LOCK, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = [*_lines(directory / NAME)[1 - LINES :], json.dumps(event)]
        size = sum(map(len, lines))
        while size > BYTES:
            size -= len(lines.pop(0))
        files.write_atomically(directory / NAME, "".join(line + "\n" for line in lines))


def read(directory: Path) -> List[HistoryEvent]:
    """Return the events that can be read, the oldest first."""
    return [event for event in map(_parsed, _lines(directory / NAME)) if event is not None]


def last(directory: Path) -> Optional[HistoryEvent]:
    """Return the newest event; None where there is none that can be read."""
    lines = _lines(directory / NAME)
    return _parsed(lines[-1]) if lines else None


def _parsed(line: str) -> Optional[HistoryEvent]:
    try:
        event = json_files.parse_object(line[: LONGEST + 1])
    except ValueError:
        return None
    whole = _NEEDED.keys() <= event.keys() and not json_files.mismatch(event, _SHAPE)
    return cast("HistoryEvent", event) if whole else None


def _lines(path: Path) -> List[str]:
    """Return the lines that are there; none where the file is absent, or is not one that this module has written."""
    try:
        return files.read_whole(str(path), 2 * BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
