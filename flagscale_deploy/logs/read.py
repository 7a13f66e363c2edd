"""Read and follow log lines of all hosts; a lost connection neither loses nor repeats lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from flagscale_deploy.diagnosis.clocks import Clock, parse_clock
from flagscale_deploy.errors import HostError, NoReplyError, RemoteError
from flagscale_deploy.logs.collect import COLLECT_SECONDS, silent
from flagscale_deploy.logs.receive import MAX_FILES
from flagscale_deploy.remote.logs.lines import LONGEST
from flagscale_deploy.remote.messages.logs import FOLLOW, FollowArguments, FollowReply, LogMark, LogPlace
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.units import format_size
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.reconnect import Tell, through_losses
from flagscale_deploy.transport.remote_program import Program
from flagscale_deploy.transport.replies import REPORT

FOREVER_SECONDS = 10 * 365 * 86400.0
SILENCE_SECONDS = 120.0
"""How long a host may send nothing of logs that are not followed."""
PATIENCE_SECONDS = 300.0
"""How long the connection to a host may be away while its logs are followed (`logs -f`)."""
REMEMBERED_MARKS = 256
CUT = " … [line cut]"
LONGEST_LINE = LONGEST + 40
"""A line that was cut on its host, with the mark that says so."""
LONGEST_MARK = 1024
LONGEST_NAME, MOST_NAMES = 4096, 16 << 20
"""Characters of a file's name, and of all names that are kept of a host."""
TAILS_BYTES, TAIL_LINE_BYTES = 64 << 20, 1 << 20
"""What the last lines of all files of a host may take, and more for each line of a file that is asked for."""
LINE_BYTES = 64
"""What a line takes in memory beside its characters."""

Lines = Callable[[str, str, Sequence[str]], None]
"""Takes a host, a file, and lines of it that came together."""


@dataclass(frozen=True)
class LineSelection:
    """Which lines of the logs to read.

    `tail`: the last lines of each file, None for all. `kinds`: only files of these kinds, None for all. Of files, only
    those written to after `since` (Unix seconds), or `within` so many seconds before now by each host's clock.
    `this_run`: no files of earlier runs. `grep`: only lines that contain one of these texts, in upper or lower case;
    then `tail` counts lines before that.
    """

    tail: int | None = None
    kinds: Sequence[str] | None = None
    since: float | None = None
    within: float | None = None
    this_run: bool = False
    grep: Sequence[str] = ()


@dataclass(frozen=True)
class ReadLimits:
    """How much is read: `timeout` seconds and about `max_bytes` of each host.

    Following ends when the caller is interrupted, or a connection is lost for longer than `patience` seconds; it has
    no timeout.
    """

    timeout: float = COLLECT_SECONDS
    max_bytes: int | None = None
    patience: float = PATIENCE_SECONDS


@dataclass(frozen=True)
class ReadResult:
    """How many files each host had, or why it could not be read; and the clocks of the hosts that sent theirs."""

    files: dict[str, int | HostError]
    clocks: dict[str, Clock]


def read_logs(
    fleet: Fleet,
    deployment: str,
    show: Lines,
    selection: LineSelection = LineSelection(),
    *,
    follow: bool = False,
    limits: ReadLimits = ReadLimits(),
    tell: Tell = silent,
) -> ReadResult:
    """Pass the selected lines of each file to `show` and, with `follow`, new lines as they are written.

    Where a connection is lost and comes back, reading continues where it was. `tell` is called for both.
    """
    timeout, patience = (FOREVER_SECONDS, limits.patience) if follow else (limits.timeout, 0.0)
    most = None if follow or selection.tail is None else TAILS_BYTES + selection.tail * TAIL_LINE_BYTES
    readings = {
        name: _Reading(
            fleet, name, _arguments(deployment, name, selection, follow), show, timeout, limits.max_bytes, most
        )
        for name in fleet.hosts
    }

    def work(reading: _Reading) -> int:
        return through_losses(
            fleet, reading.host, reading.attempt, heard=lambda: reading.messages, patience=patience, tell=tell
        )

    files = fleet.gather({name: partial(work, reading) for name, reading in readings.items()}, together=True)
    clocks = {name: reading.clock for name, reading in readings.items() if reading.clock is not None}
    return ReadResult(files, clocks)


def _arguments(deployment: str, host: str, selection: LineSelection, follow: bool) -> FollowArguments:
    args: FollowArguments = {
        "deployment": deployment,
        "host": host,
        "tail": selection.tail,
        "follow": follow,
        "kinds": selection.kinds,
        "clock": True,
    }
    if selection.since is not None or selection.within is not None:
        args["since"], args["within"] = selection.since, selection.within
    if selection.this_run:
        args["this_run"] = True
    if selection.grep:
        args["grep"] = list(selection.grep)
    return args


@dataclass
class _Reading:
    """The state of reading one host's files: where the next line of each begins."""

    fleet: Fleet
    host: str
    args: FollowArguments
    show: Lines
    timeout: float
    max_bytes: int | None
    most: int | None
    """More bytes are too many; None: as many as it has were asked for."""
    clock: Clock | None = None
    messages: int = 0
    places: dict[tuple[int, int], LogPlace] = field(default_factory=dict)
    truncated: deque[LogPlace] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MARKS))
    files: set[str] = field(default_factory=set)
    names: int = 0
    bytes: int = 0

    def attempt(self, connection: Connection) -> int:
        args: FollowArguments = {**self.args}
        if self.places:
            args["places"], args["left"] = list(self.places.values()), list(self.truncated)
        limit, silence = Deadline(self.timeout), FOREVER_SECONDS if self.args["follow"] else SILENCE_SECONDS
        first = min(self.timeout, silence)
        with Program(connection, FOLLOW, args, timeout=first, cancelled=self.fleet.cancelled, bounded=False) as program:
            for message in program.messages():
                self._take(message)
                program.allow(min(limit.remaining, silence))
                if self.max_bytes is not None and self.bytes > self.max_bytes:
                    break
        if not self.messages:  # not even its clock
            raise NoReplyError(self.host, "follow: the host program ended without a reply")
        return len(self.files)

    def _take(self, message: FollowReply) -> None:
        """Show lines, then note their place; a connection breaks between messages, so both or neither happens."""
        self.messages += 1
        lines = message.get("lines")
        if lines is None:  # a keepalive, or the host's clock
            self.clock = parse_clock(message) or self.clock
            return
        file = message.get("file", "")
        self._keep(file, is_new=file not in self.files)
        self.files.add(file)
        if lines:
            self.bytes += sum(map(len, lines)) + LINE_BYTES * len(lines)
            if self.most is not None and self.bytes > self.most:
                problem = f"it sends more than {format_size(self.most)} as the last lines of its logs"
                raise RemoteError(self.host, problem, "read fewer with --kind or --since; -o collects all of them")
            self.show(self.host, file, [line if len(line) <= LONGEST_LINE else line[:LONGEST] + CUT for line in lines])
        at = message.get("at")
        if at is not None:
            self._note(file, at)

    def _keep(self, name: str, *, is_new: bool) -> None:
        """Count a file's name if it is new, before it is kept. Raises RemoteError for too many files or too long ones.

        Files and places are counted together: a host makes up both.
        """
        if len(name) > LONGEST_NAME:
            raise RemoteError(self.host, f"follow: a file's name has {len(name):,} characters", REPORT)
        self.names += len(name) if is_new else 0
        if max(len(self.files), len(self.places)) > MAX_FILES or self.names > MOST_NAMES:
            problem = f"it has more than {MAX_FILES:,} log files, or very long names of files"
            raise RemoteError(self.host, problem, "read fewer with --kind or --since")

    def _note(self, file: str, at: LogMark) -> None:
        if len(at["head"]) > LONGEST_MARK or len(at["last"]) > LONGEST_MARK:  # it is kept and sent back
            raise RemoteError(self.host, "follow: malformed place in a log file")
        key = at["device"], at["inode"]
        before = self.places.get(key)
        self._keep(file, is_new=before is None)
        if before is not None and _was_truncated(before["at"], at):  # rotation may still make a copy of it
            self.truncated.append(before)
        self.places[key] = {"file": file, "at": at}


def _was_truncated(before: LogMark, at: LogMark) -> bool:
    return before["offset"] > at["offset"] or not at["head"].startswith(before["head"])
