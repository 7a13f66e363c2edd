"""What changes one group of a running deployment: `route`, `drain`, `stop_group`, `change_record`."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import KIB, HostProgram, NoOrder, RunTarget, Target, TypedDict
from flagscale_deploy.remote.messages.record import Record, RecordedChange
from flagscale_deploy.remote.messages.run import Conflict
from flagscale_deploy.remote.messages.stop import Survivor

# route: take servers out of a vllm-router on its host, or put them back.


class RouteArguments(Target):
    """Which servers are not to be behind the router, and which are."""

    router: str  # its URL on this host
    remove: list[str]  # URLs, as the router calls them
    add: list[str]
    timeout: float  # in seconds, for all of it


class RouteReply(TypedDict):
    """What the router says of its workers afterwards."""

    workers: list[str]  # URLs
    problem: str  # why it is not as asked for; "" where it is


ROUTE = HostProgram[RouteArguments, RouteReply, NoOrder]("route", messages=1, message_bytes=256 * KIB)

# drain: wait on a host until servers have no request any more.


class DrainArguments(Target):
    """Which servers, and for how many seconds at most."""

    urls: list[str]  # on this host
    timeout: float


class DrainReply(TypedDict):
    """What is left."""

    idle: bool  # nothing
    requests: int  # running and waiting
    why: str  # why that is not known of a server; "" where it is


DRAIN = HostProgram[DrainArguments, DrainReply, NoOrder]("drain", messages=1, message_bytes=16 * KIB)

# stop_group: end what one group runs on a host, and nothing else.


class StopGroupArguments(RunTarget):
    """The group's scripts on this host; `grace` is the time between SIGTERM and SIGKILL, in seconds."""

    scripts: list[str]
    grace: float


class StopGroupReply(TypedDict):
    """Without survivors, the record names none of its processes any more."""

    ended: int  # processes
    killed: int  # of them, by SIGKILL
    survivors: list[Survivor]
    segments: int  # removed from /dev/shm


STOP_GROUP = HostProgram[StopGroupArguments, StopGroupReply, NoOrder]("stop_group", messages=1, message_bytes=64 * KIB)

# change_record: note in a host's record what is changed, and which groups there are.


class ChangeEvent(TypedDict):
    """What is noted in the history of a host when a change is over."""

    event: Literal["updated", "put back", "update failed"]
    run_id: str  # of the change
    by: str  # who began it
    reason: str  # what was changed, and why it failed: a line each
    took: float  # seconds


class RecordChange(TypedDict, total=False):
    """What to do to a record, in this order; everything may be done again.

    A group that joins takes the place of the one of its name, whose processes are gone.
    """

    before: Literal[
        "keep", "restore", "forget"
    ]  # scripts, secrets and program's files as they are: once, for `restore`
    scripts: list[str]  # of a group, on this host: they may be started again; `restore` is of these, and of all secrets
    files: dict[str, tuple[str, str]]  # text and octal mode by path in the state directory
    change: RecordedChange | None  # None: the change is over
    drop: list[str]  # names of groups
    join: Record  # as a run sends it, of some groups alone
    exclusive: list[str]  # what of it no other deployment may have: gpus, ports
    common: Record  # what all hosts have in common: its keys replace those of the record
    event: ChangeEvent


class ChangeRecordArguments(RunTarget, RecordChange, total=False):
    """Whose record, and what to do to it."""


class ChangeRecordReply(TypedDict):
    """What others have of what a group needs; then nothing was done."""

    taken: list[Conflict]


CHANGE_RECORD = HostProgram[ChangeRecordArguments, ChangeRecordReply, NoOrder]("change_record")
