"""Progress events: actions emit them, and sinks show or record them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal

from flagscale_deploy.secrets.json_texts import redacted_json
from flagscale_deploy.text import one_line

_JSON_LINE = json.JSONEncoder(ensure_ascii=False).encode

State = Literal["running", "progress", "done", "failed", "note"]


@dataclass(frozen=True)
class Event:
    """Progress of a stage on a host ("" on the operator's side).

    `percent` is 0 to 100, `elapsed` is in seconds, `at` is Unix time. `text` is on one line, whatever a host sent;
    `lines` are those below it, as an error has them.
    """

    stage: str
    state: State
    host: str = ""
    text: str = ""
    percent: float | None = None
    elapsed: float | None = None
    at: float = field(default_factory=time.time)
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", one_line(self.text))


Sink = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Ignore an event."""


class Journal:
    """Passes each event to its sinks, one at a time, from any thread."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._lock = threading.Lock()

    def add(self, sink: Sink) -> None:
        """Pass later events to this sink, too."""
        with self._lock:
            self._sinks.append(sink)

    def __call__(self, event: Event) -> None:
        """Pass an event to all sinks."""
        with self._lock:
            for sink in self._sinks:
                sink(event)


def stage_seconds(events: Iterable[Event]) -> dict[str, float]:
    """Return the seconds from the first event of each stage to its last, in the order of their first events."""
    spans: dict[str, tuple[float, float]] = {}
    for event in events:
        spans[event.stage] = spans.get(event.stage, (event.at, event.at))[0], event.at
    return {stage: last - first for stage, (first, last) in spans.items()}


def _without_waiting(path: str, flags: int) -> int:
    """Open a file through no link; a pipe that somebody has put there keeps nobody waiting."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


class JsonLines:
    """A sink that writes one JSON object per line, passed through `redact` first.

    Where the file cannot be written any more (a full disk), writing stops without an error; `problem` says why.
    """

    def __init__(self, path: Path, redact: Callable[[str], str]) -> None:
        self.problem = ""
        self._redact = redact
        self._file: FileIO | None = None
        try:
            self._file = FileIO(path, "ab", opener=_without_waiting)
        except OSError as error:
            self.problem = error.strerror or str(error)

    def __call__(self, event: Event) -> None:
        """Write an event."""
        if self._file is None or self.problem:
            return
        content = {key: value for key, value in asdict(event).items() if value not in (None, ())}
        line = redacted_json(content, _JSON_LINE, self._redact) + "\n"
        try:
            self._file.write(line.encode(errors="replace"))
        except OSError as error:
            self.problem = error.strerror or str(error)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
