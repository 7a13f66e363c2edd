"""Logs of a deployment: `follow`, `archive`."""

from __future__ import annotations

from typing import Sequence

from flagscale_deploy.remote.messages.program import KIB, MIB, HostProgram, NoOrder, Target, TypedDict


class HostClock(TypedDict):
    """The clock of a host, by which its logs are stamped."""

    clock: float
    utc_offset: float  # seconds that local time is ahead of UTC


# follow: lines of log files, and new ones as they are written, until standard input ends.


class LogMark(TypedDict):
    """A place in a file; see `remote/logs/tail.py`."""

    device: int
    inode: int
    offset: int
    skipping: bool  # the rest of the line after it is known, too
    head: str  # the file's first bytes, in hexadecimal
    last: str  # digest of what is before the place


class LogPlace(TypedDict):
    """Where a file was left."""

    file: str
    at: LogMark


class _FollowArguments(Target):
    tail: int | None  # lines of each file; None: all
    follow: bool
    kinds: Sequence[str] | None


class FollowArguments(_FollowArguments, total=False):
    """Which files. With `places` and `left` it goes on where an earlier one ended."""

    since: float | None  # only files that were written to since
    within: float | None  # in so many seconds before now
    clock: bool  # whether to send the host's clock first
    this_run: bool  # whether files of earlier runs are left out
    grep: Sequence[str]  # only lines that contain one of these; case does not matter
    places: list[LogPlace]  # the last one of each file
    left: list[LogPlace]  # where files were when they were truncated


class FollowReply(TypedDict, total=False):
    """`file` with `lines` and `at`; the first one of a file has no lines. `alive` every 30 s; the clock, if asked."""

    file: str
    lines: list[str]
    at: LogMark  # where the next line begins
    alive: bool
    clock: float  # as in HostClock
    utc_offset: float


FOLLOW = HostProgram[FollowArguments, FollowReply, NoOrder]("follow", message_bytes=8 * MIB, bytes_per_second=None)

# archive: log files, from where the operator's copies of them end.


class ArchiveArguments(Target, total=False):
    """Which files, and what the operator has of them."""

    have: dict[str, tuple[int, str]]  # bytes and digest (`remote/logs/sparse.py`) by name in hexadecimal
    since: float | None
    within: float | None
    max_size: int | None  # of a longer file so many bytes come, half from its beginning, half from its end


class ArchiveReply(TypedDict, total=False):
    """`archive` and the clock first; of each file `file` with `size`, `at`, `mtime`, then its content, then `end`.

    Content is `data` with so many bytes behind the message, or with `packed` so many bytes that make `data`; `zeros`;
    `cut` for bytes left out. `problem` is a file that does not come. `done` and `older` are the last.
    """

    archive: int  # version of this protocol
    clock: float  # as in HostClock
    utc_offset: float
    file: str
    bytes: str  # name in hexadecimal, where it is no UTF-8
    size: int
    at: int  # what the operator has already
    mtime: float
    again: bool  # the file comes a second time, from its beginning: it was truncated
    data: int
    packed: int
    by: str  # zstd or zlib
    zeros: int
    cut: int
    end: bool
    why: str  # what did not come, "" where all did
    problem: str
    done: bool
    older: int  # files left out, by `since`


ARCHIVE = HostProgram[ArchiveArguments, ArchiveReply, NoOrder]("archive", message_bytes=64 * KIB, bytes_per_second=None)
