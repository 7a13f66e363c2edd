"""What became of a deployment: its hosts' histories as one, with what each run and each update changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import cast

from flagscale_deploy.deploy.flag_differences import Argv, flag_differences
from flagscale_deploy.deploy.kept_runs import Configuration
from flagscale_deploy.errors import FaultsError, HostError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.history import HISTORY, HistoryArguments, HistoryEvent
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers
from flagscale_deploy.transport.remote_program import Program

SCHEMA = 1
SECONDS = 60.0
UPDATES = ("updated", "put back", "update failed")
"""How an update can end."""
OF_ALL_HOSTS = ("run", "stopped", "failed", *UPDATES)
"""Events that each host of a run has."""
CONFIGURATIONS = ("run", "updated")
"""Events with which another configuration runs, by whose id what it was is kept."""
MOST_EVENTS = 1000
"""As many a host keeps (`remote/deployment/history.py`)."""
MOST_RUNS = 20
"""As many descriptions of runs and updates a host keeps (`remote/deployment/kept.py`)."""
LONGEST_NUMBER = 4
"""Digits of a run's number; a longer word is the beginning of an id."""
LONGEST, LONGEST_ARGV = 2000, 64 << 10
"""Characters of a text, and of the command lines of a run, that are taken."""
LAST_TIME = 253402300799.0
"""Unix time of the end of the year 9999: a time is taken as one between 1970 and then."""
APART_SECONDS = 3600.0
"""Times of a run by clocks that differ by more from the first host's decide nothing."""


@dataclass(frozen=True)
class Change:
    """Something that became of a deployment, on one host or on several."""

    time: float
    """Unix time: of the first host for a run, of the last one for its end and for an update's."""
    event: str
    hosts: tuple[str, ...]
    run_id: str = ""
    """Of the run, or of the update."""
    server: str = ""
    by: str = ""
    reason: str = ""
    took: float | None = None
    """Seconds: of `ready` and of an end since the run began, of `restored` since the restart; an update's own.

    Of `ready` in an update they are since the server's process began.
    """
    evidence: str = ""
    argv: Argv = field(default_factory=dict)
    """Of a run: the command line of each server."""
    number: int | None = None
    """Of a run or an update: its place among those that the head has, from 1."""
    changed: tuple[str, ...] = ()
    """Of a run: what its command lines have that those of the run before had not, as `+` and `-` with the words.

    Of an update: what it says of that itself, a line each.
    """


@dataclass(frozen=True)
class History:
    """All changes of a deployment, the oldest first; `unknown` says of hosts why they could not be asked."""

    deployment: str
    changes: tuple[Change, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By host, the head first: the digest of what it keeps of each run, by the run's id."""
    configuration: Configuration | None = None
    """Of the run or update that was asked for."""
    decides: str = ""
    """The host whose word counts for runs and updates; "" where the head has none."""

    @property
    def runs(self) -> tuple[str, ...]:
        """Return the ids of all runs and updates, the oldest first."""
        return tuple(dict.fromkeys(change.run_id for change in self.changes if change.event in CONFIGURATIONS))

    @property
    def numbered(self) -> tuple[str, ...]:
        """Return the ids of those that have a number, in its order."""
        return tuple(change.run_id for change in self.changes if change.number is not None)

    @property
    def served(self) -> tuple[str, ...]:
        """Return the ids of the runs and updates that came to serve, the oldest first: what a rollback may go back to.

        They are updates that went well, and runs that did not fail and of which a server was ready once.
        """
        by_head = [change for change in self.changes if not self.decides or self.decides in change.hosts]
        updated = {change.run_id for change in by_head if change.event == "updated"}
        failed = {change.run_id for change in by_head if change.event == "failed"}
        ready = {change.run_id for change in self.changes if change.event == "ready"}
        return tuple(run_id for run_id in self.numbered if run_id in updated | (ready - failed))

    @property
    def exit_code(self) -> int:
        """Return 3 when a host could not be asked."""
        return 3 if self.unknown else 0

    def of_run(self, run_id: str) -> History:
        """Return what belongs to a run or update; restarts to the last one before them, there or else on the head."""
        kept, current = [], dict.fromkeys(("", self.decides), "")
        for change in self.changes:
            if change.event in CONFIGURATIONS:
                current |= dict.fromkeys(change.hosts if self.decides else (*change.hosts, ""), change.run_id)
            if (change.run_id or current.get(change.hosts[0], current[self.decides])) == run_id:
                kept.append(change)
        return replace(self, changes=tuple(kept))

    def last(self, number: int) -> History:
        """Return the newest changes: of each host its share at least, whatever times others send."""
        places: dict[str, list[int]] = {}
        for place, change in enumerate(self.changes):
            places.setdefault(change.hosts[0], []).append(place)
        share = max(1, number // max(1, len(places)))
        of_each = {place for own in places.values() for place in own[-share:]}
        newest = [place for place in range(len(self.changes)) if place not in of_each]
        room = max(0, number - len(of_each))
        kept = sorted({*of_each, *(newest[-room:] if room else ())})[-number:] if number else []
        return replace(self, changes=tuple(self.changes[place] for place in kept))

    def named(self, word: str) -> str:
        """Return the id of the run or update that is meant: by its id, the beginning of it, or its number.

        Raises FaultsError where none is, or several are.
        """
        if word in self.runs:
            return word
        if word.isdecimal() and len(word) <= LONGEST_NUMBER and 0 < int(word) <= len(self.numbered):
            return self.numbered[int(word) - 1]
        matching = [run_id for run_id in self.runs if run_id.startswith(word)]
        if len(matching) == 1:
            return matching[0]
        remedy = f"`history` without it lists {'them' if not matching else 'the runs'}"
        if not matching:
            raise FaultsError.at(word, f"{self.deployment} has no run or update of this name", remedy)
        raise FaultsError.at(word, f"{counted(len(matching), 'run')} of {self.deployment} begin so", remedy)

    def before(self, run_id: str) -> str | None:
        """Return the run or update before this one, of those that the head has too; None for the first."""
        runs = self.numbered if run_id in self.numbered else self.runs
        at = runs.index(run_id)
        return runs[at - 1] if at else None

    def json(self) -> dict[str, object]:
        """Return what `history --json` prints."""
        changes = [asdict(change) for change in self.changes]
        content = {"schema": SCHEMA, "deployment": self.deployment, "changes": changes, "unknown": dict(self.unknown)}
        return content if self.configuration is None else {**content, "configuration": self.configuration.json()}


def read_history(fleet: Fleet, deployment: str, head: str) -> History:
    """Return the history of a deployment, by all hosts; who began a run, and how, is the `head`'s to say."""
    kept: dict[str, Mapping[str, str]] = {}

    def read(host: Host) -> list[HistoryEvent]:
        args: HistoryArguments = {"deployment": deployment, "host": host.name}
        connection = fleet.connection(host.name)
        with Program(connection, HISTORY, args, timeout=SECONDS, cancelled=fleet.cancelled) as program:
            events: list[HistoryEvent] = []
            for message in program.messages():
                events += map(_cut, message["events"][: MOST_EVENTS - len(events)])
                kept[host.name] = dict(islice(message.get("kept", {}).items(), MOST_RUNS))
            return events

    results = fleet.map(read)
    events = answers(results)
    unknown = {name: result.problem for name, result in results.items() if isinstance(result, HostError)}
    ordered = sorted(events, key=lambda host: host != head)
    decides = head if any(event["event"] == "run" for event in events.get(head, ())) else ""
    changes = sorted((*_of_all(events, ordered, decides), *_of_one(events)), key=lambda change: change.time)
    return History(
        deployment,
        tuple(_with_differences(changes, decides)),
        unknown,
        {name: kept[name] for name in ordered if kept.get(name)},
        decides=decides,
    )


def _cut(event: HistoryEvent) -> HistoryEvent:
    """Return of an event what is taken: a host may send anything."""
    texts = {key: value[:LONGEST] for key, value in event.items() if isinstance(value, str)}
    took = {"took": min(max(event["took"], 0.0), LAST_TIME)} if "took" in event else {}
    size = sum(len(word) + 1 for words in event.get("argv", {}).values() for word in words)
    argv, time = event.get("argv", {}) if size <= LONGEST_ARGV else {}, min(max(event["time"], 0.0), LAST_TIME)
    return cast("HistoryEvent", {**event, **texts, **took, "argv": argv, "time": time})


def _of_all(events: Mapping[str, Sequence[HistoryEvent]], hosts: Sequence[str], decides: str) -> Iterator[Change]:
    """Yield one change for each run, for its end, and for each update's, that several hosts have in their histories.

    Command lines, and what an update changed, are those of the host that `decides`; where that is "", those that all
    hosts of the run have.
    """
    groups: dict[tuple[str, str], list[tuple[str, HistoryEvent]]] = {}
    for host in hosts:
        for event in events[host]:
            if event["event"] in OF_ALL_HOSTS:
                groups.setdefault((event["event"], event.get("run_id", "")), []).append((host, event))
    began = {run_id: min(_times(members)) for (kind, run_id), members in groups.items() if kind == "run"}
    for (kind, run_id), members in groups.items():
        first, times = members[0][1], _times(members)
        agreed = _is_agreed(members, decides)
        time = min(times) if kind == "run" else max(times)
        since = _since(time, began.get(run_id)) if kind != "run" else None
        yield Change(
            time,
            kind,
            tuple(dict.fromkeys(host for host, _ in members)),
            run_id,
            by=first.get("by", ""),
            reason=first["reason"] if kind != "updated" else "",
            took=first.get("took") if kind in UPDATES else since,
            argv=first.get("argv", {}) if kind == "run" and agreed else {},
            changed=tuple(first["reason"].splitlines()) if kind == "updated" and agreed else (),
        )


def _is_agreed(members: Sequence[tuple[str, HistoryEvent]], decides: str) -> bool:
    """Return whether what the first one has of it is what counts."""
    host, first = members[0]
    same = all(event.get(key) == first.get(key) for _, event in members for key in ("argv", "reason"))
    return host == decides or (not decides and same)


def _of_one(events: Mapping[str, Sequence[HistoryEvent]]) -> Iterator[Change]:
    """Yield what became of single servers, each told by its own host."""
    for host, own in events.items():
        began: dict[str, float] = {}
        restarting: dict[str, float] = {}
        for event in own:
            kind, server, time = event["event"], event["server"], event["time"]
            if kind == "run":
                began = dict.fromkeys(("", event.get("run_id", "")), time)
            if kind == "restarting":
                restarting[server] = time
            if kind not in OF_ALL_HOSTS:
                since = {"ready": began.get(event.get("run_id", "")), "restored": restarting.get(server)}.get(kind)
                took = _since(time, since) if since is not None or kind != "ready" else event.get("took")
                yield Change(
                    time, kind, (host,), event.get("run_id", ""), server, reason=event["reason"],
                    took=took, evidence=event.get("evidence", ""),
                )  # fmt: skip


def _times(members: Iterable[tuple[str, HistoryEvent]]) -> list[float]:
    """Return the times of an event on several hosts: the first one's, and those that are near it."""
    times = [event["time"] for _, event in members]
    return [time for time in times if abs(time - times[0]) <= APART_SECONDS]


def _since(time: float, began: float | None) -> float | None:
    return None if began is None else max(0.0, time - began)


def _with_differences(changes: Iterable[Change], decides: str) -> Iterator[Change]:
    """Yield changes: runs and updates with their numbers, where the host that `decides` has them.

    Runs say what differs from the one before.
    """
    before: Argv | None = None
    number = 0
    for change in changes:
        if change.event in CONFIGURATIONS and (not decides or decides in change.hosts):
            number += 1
            change = replace(change, number=number)
        if change.event == "run" and change.argv:
            differences = tuple(flag_differences(before, change.argv)) if before is not None else ()
            before = change.argv
            change = replace(change, changed=differences)
        yield change
