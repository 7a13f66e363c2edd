"""Whether an engine's start stands still: its own log, and its own processes on every host of it."""

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

Said = Literal["", "still", "dead still"]


@dataclass(frozen=True)
class Group:
    """Processes of a host that belong together: when one of them has last read, and used CPU time, by our clock."""

    read_at: float
    used_at: float
    stopped: tuple[str, ...] = ()
    """Those that are stopped, or wait for a disk."""


@dataclass
class _Start:
    """One instance that starts. `groups` are, by host and script, its processes; "" are those of Ray."""

    line_at: float
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    said: Said = ""


class Stalls:
    """Says of every instance once that nothing comes and nothing is read, and once that it moves again.

    A log that ticks, or a process that computes, of another instance doesn't count; where instances share a host and
    Ray, what Ray's workers there do counts for all of them. CPU time that is used is no sign of progress by itself (a
    rank that waits for another one spins), nor is it standing still (compiling logs nothing for minutes): it is said.
    """

    def __init__(
        self,
        instances: Sequence[InstancePlan],
        seconds: float,
        say: Sink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._say, self._clock = seconds, say, clock
        self._instances = {each.name: each for each in instances}
        self._starts = {name: _Start(clock()) for name in self._instances}
        self._several = len(self._instances) > 1
        self._lock = threading.Lock()

    def heard(self, name: str) -> None:
        """An instance has written to its log."""
        with self._lock:
            if name in self._starts:
                self._starts[name].line_at = self._clock()
        self._tell()

    def seen(self, host: str, groups: Mapping[str, Stillness]) -> None:
        """What the processes of a host did, by script, as `remote/programs/watch_ranks.py` says it."""
        with self._lock:
            for name, start in self._starts.items():
                found = {
                    (host, each): self._group(groups[each]) for each in self._scripts(name, host) if each in groups
                }
                start.groups = {key: group for key, group in start.groups.items() if key[0] != host} | found
        self._tell()

    def ready(self, name: str) -> None:
        """An instance is ready, and may be silent from now on."""
        with self._lock:
            self._starts.pop(name, None)

    def _group(self, said: Stillness) -> Group:
        now = self._clock()
        return Group(now - said["read"], now - said["used"], tuple(said["stopped"]))

    def _scripts(self, name: str, host: str) -> Iterator[str]:
        instance = self._instances[name]
        if host == instance.driver:
            yield instance.script
        if host in instance.hosts and (instance.executor == "ray" or is_program(instance)):
            yield ""

    def _tell(self) -> None:
        with self._lock:
            events = [event for name, start in self._starts.items() if (event := self._judge(name, start)) is not None]
        for event in events:
            self._say(event)

    def _judge(self, name: str, start: _Start) -> Event | None:
        """What is new of an instance, if anything."""
        at = self._clock()
        still = at - max([start.line_at, *(group.read_at for group in start.groups.values())])
        if not start.groups or still < self._seconds:
            was, start.said = start.said, ""
            return self._event(name, "it moves again") if was else None
        busy = sorted({host for (host, _), group in start.groups.items() if at - group.used_at < self._seconds})
        now: Said = "still" if busy else "dead still"
        if start.said in (now, "dead still"):
            return None
        start.said = now
        hosts = sorted({host for host, _ in start.groups})
        if busy:
            doing = f"CPU is used on {', '.join(busy)}: compiling, or spinning while it waits"
            return self._event(name, f"no log line, no byte read on {', '.join(hosts)} for {still:.0f} s; {doing}")
        held = _held(start)
        concerned = sorted(held) or hosts
        text = f"nothing moves on {', '.join(concerned)}: no log line, no byte read, no CPU time used for {still:.0f} s"
        told = "; ".join(
            f"{', '.join(titles)} on {host} is stopped, or waits for a disk" for host, titles in sorted(held.items())
        )
        return self._event(name, text + (f" ({told})" if told else ""), concerned)

    def _event(self, name: str, text: str, hosts: Sequence[str] = ()) -> Event:
        return Event(SERVE, "note", hosts[0] if len(hosts) == 1 else "", f"{name}: {text}" if self._several else text)


def _held(start: _Start) -> dict[str, list[str]]:
    """Processes that are stopped, by host."""
    held: dict[str, list[str]] = {}
    for (host, _), group in start.groups.items():
        if group.stopped:
            held.setdefault(host, []).extend(group.stopped)
    return held
