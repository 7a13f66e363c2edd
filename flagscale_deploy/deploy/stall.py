"""Detect that an engine's start has stalled, from its log and its processes on all of its hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.stages import SERVE
from flagscale_deploy.remote.messages.run import Stillness

Reported = Literal["", "still", "dead still"]


@dataclass(frozen=True)
class Group:
    """Processes that belong together on a host: when one last read data, and last used CPU time, by our clock."""

    read_at: float
    used_at: float
    stopped: tuple[str, ...] = ()
    """The processes that are stopped, or wait for a disk."""


@dataclass
class _Start:
    """An instance that is starting. `groups` are its processes by host and script; "" stands for Ray's workers."""

    line_at: float
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    reported: Reported = ""


class Stalls:
    """Reports once that an instance neither logs nor reads data, and once that it makes progress again.

    Only the log and the processes of the instance itself count; where instances share a host and Ray, activity of Ray's
    workers on it counts for all of them. CPU time alone is no sign of progress (a rank that waits for another one
    spins), but no stall either (compiling logs nothing for minutes): the report mentions it.
    """

    def __init__(
        self,
        instances: Sequence[InstancePlan],
        seconds: float,
        say: Sink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._say, self._clock = seconds, say, clock
        self._instances = {instance.name: instance for instance in instances}
        self._starts = {name: _Start(clock()) for name in self._instances}
        self._several = len(self._instances) > 1
        self._lock = threading.Lock()

    def note_output(self, name: str) -> None:
        """Record that an instance has written to its log."""
        with self._lock:
            if name in self._starts:
                self._starts[name].line_at = self._clock()
        self._tell()

    def note_activity(self, host: str, groups: Mapping[str, Stillness]) -> None:
        """Record the activity of a host's processes by script, as `remote/programs/watch_ranks.py` reports it."""
        with self._lock:
            for name, start in self._starts.items():
                fresh = {
                    (host, script): self._group(groups[script])
                    for script in self._scripts(name, host)
                    if script in groups
                }
                start.groups = {key: group for key, group in start.groups.items() if key[0] != host} | fresh
        self._tell()

    def mark_ready(self, name: str) -> None:
        """Record that an instance is ready: it may be silent from now on."""
        with self._lock:
            self._starts.pop(name, None)

    def _group(self, stillness: Stillness) -> Group:
        now = self._clock()
        return Group(now - stillness["read"], now - stillness["used"], tuple(stillness["stopped"]))

    def _scripts(self, name: str, host: str) -> Iterator[str]:
        instance = self._instances[name]
        yield from (rank.script for rank in instance.ranks if rank.host == host)
        if host in instance.hosts and (instance.executor == "ray" or is_program(instance)):
            yield ""

    def _tell(self) -> None:
        with self._lock:
            events = [event for name, start in self._starts.items() if (event := self._judge(name, start)) is not None]
        for event in events:
            self._say(event)

    def _judge(self, name: str, start: _Start) -> Event | None:
        """Return the event to report of an instance, if its state has changed."""
        at = self._clock()
        still = at - max([start.line_at, *(group.read_at for group in start.groups.values())])
        if not start.groups or still < self._seconds:
            before, start.reported = start.reported, ""
            return self._event(name, "it makes progress again") if before else None
        busy = sorted({host for (host, _), group in start.groups.items() if at - group.used_at < self._seconds})
        now: Reported = "still" if busy else "dead still"
        if start.reported in (now, "dead still"):
            return None
        start.reported = now
        hosts = sorted({host for host, _ in start.groups})
        if busy:
            activity = f"CPU is in use on {', '.join(busy)}: it compiles, or waits in a loop"
            return self._event(
                name, f"no log line and no data read on {', '.join(hosts)} for {still:.0f} s; {activity}"
            )
        held = _held(start)
        concerned = sorted(held) or hosts
        text = f"no progress on {', '.join(concerned)}: no log line, no data read, no CPU time used for {still:.0f} s"
        stopped = "; ".join(
            f"{', '.join(titles)} on {host} is stopped, or waits for a disk" for host, titles in sorted(held.items())
        )
        return self._event(name, text + (f" ({stopped})" if stopped else ""), concerned)

    def _event(self, name: str, text: str, hosts: Sequence[str] = ()) -> Event:
        return Event(SERVE, "note", hosts[0] if len(hosts) == 1 else "", f"{name}: {text}" if self._several else text)


def _held(start: _Start) -> dict[str, list[str]]:
    """Return the processes that are stopped, by host."""
    held: dict[str, list[str]] = {}
    for (host, _), group in start.groups.items():
        if group.stopped:
            held.setdefault(host, []).extend(group.stopped)
    return held
