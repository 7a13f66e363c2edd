"""Progress as values: whoever acts says what happens, whoever listens draws or writes it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO

State = Literal["running", "progress", "done", "failed", "note"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a stage, on a host ("" is the operator's side).

    `percent` is 0 to 100, `elapsed` in seconds, `at` is Unix time.
    """

    stage: str
    state: State
    host: str = ""
    text: str = ""
    percent: float | None = None
    elapsed: float | None = None
    at: float = field(default_factory=time.time)


Sink = Callable[[Event], None]


def silent(_event: Event) -> None:
    """The sink for those who don't listen."""


class Journal:
    """Hands each event to its sinks, one at a time, whatever thread it comes from."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._lock = threading.Lock()

    def add(self, sink: Sink) -> None:
        with self._lock:
            self._sinks.append(sink)

    def __call__(self, event: Event) -> None:
        with self._lock:
            for sink in self._sinks:
                sink(event)


def stage_seconds(events: Iterable[Event]) -> dict[str, float]:
    """Seconds from the first event of each stage to its last, in the order in which stages began."""
    spans: dict[str, tuple[float, float]] = {}
    for event in events:
        spans[event.stage] = spans.get(event.stage, (event.at, event.at))[0], event.at
    return {stage: last - first for stage, (first, last) in spans.items()}


class JsonLines:
    """A sink that writes one JSON object a line, each passed through `redact` first."""

    def __init__(self, path: Path, redact: Callable[[str], str]) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._redact = redact

    def __call__(self, event: Event) -> None:
        said = {key: value for key, value in asdict(event).items() if value is not None}
        self._file.write(self._redact(json.dumps(said, ensure_ascii=False)) + "\n")
        self._file.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._file.close()
