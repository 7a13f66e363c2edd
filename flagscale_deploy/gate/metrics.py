"""The gate's own metrics, as Prometheus reads them. Labels are names of the configuration, never a client's text."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histograms' buckets in seconds."""
MOST_SERIES = 10_000
OTHER = "other"
PREFIX = "flagscale_gate"


@dataclass
class Histogram:
    """Times, counted by bucket."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a time."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield its lines."""
        count = 0
        for bound, number in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            count += number
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {count}"


class Metrics:
    """What was counted since the gate began."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._cut: Counter[str] = Counter()
        self._first: dict[str, Histogram] = {}
        self._duration: dict[str, Histogram] = {}
        self.connections = 0
        self.lines_lost = 0

    def began(self, model: str) -> None:
        """Count a request that is passed on."""
        self._open[model] += 1

    def ended(self, model: str, sent: int, seconds: float, first_byte: float | None) -> None:
        """Count the end of a request that was passed on."""
        self._open[model] -= 1
        self._bytes[model] += sent
        self._duration.setdefault(model, Histogram()).add(seconds)
        if first_byte is not None:
            self._first.setdefault(model, Histogram()).add(first_byte)

    def count(self, key: str, model: str, status: int) -> None:
        """Count a reply."""
        series = (key, model, status)
        known_series = series in self._requests or len(self._requests) < MOST_SERIES
        self._requests[series if known_series else (OTHER, model, status)] += 1

    def cut(self, model: str) -> None:
        """Count a reply that its server broke off."""
        self._cut[model] += 1

    def text(self) -> str:
        """Return all as Prometheus text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests by key, model and status.")
        for (key, model, status), number in sorted(self._requests.items()):
            yield f'{PREFIX}_requests_total{{{_label("key", key)},{_label("model", model)},status="{status}"}} {number}'
        for name, kind, text, counts in (
            ("open_requests", "gauge", "Requests that are passed on just now.", self._open),
            ("sent_bytes_total", "counter", "Bytes of replies that were sent to clients.", self._bytes),
            ("cut_replies_total", "counter", "Replies that a server broke off.", self._cut),
        ):
            yield from _head(name, kind, text)
            yield from (f"{PREFIX}_{name}{{{_label('model', model)}}} {counts[model]}" for model in sorted(counts))
        for name, text, histograms in (
            ("first_byte_seconds", "Time from a request to the first byte of its reply.", self._first),
            ("request_seconds", "Time from a request to the end of its reply.", self._duration),
        ):
            yield from _head(name, "histogram", text)
            for model in sorted(histograms):
                yield from histograms[model].lines(f"{PREFIX}_{name}", _label("model", model))
        yield from _head("connections", "gauge", "Connections of clients.")
        yield f"{PREFIX}_connections {self.connections}"
        yield from _head("log_lines_lost_total", "counter", "Lines of the access log that could not be written.")
        yield f"{PREFIX}_log_lines_lost_total {self.lines_lost}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'
