"""The deployment's lock, and its end: `lock`, `unlock`, `stop`, `cleanup`."""

from __future__ import annotations

from typing import Literal, Union

from flagscale_deploy.remote.messages.program import KIB, HostProgram, NoOrder, Target, TypedDict

# lock: hold the deployment's lock on its head for as long as the operator answers.

_LockIdentity = TypedDict(
    "_LockIdentity",
    {
        "from": str,  # the operator's address, "" where it is this machine
        "pid": int,
        "start_ticks": "int | None",
        "boot_id": str,
    },
    total=False,
)


class LockIdentity(_LockIdentity, total=False):
    """The process that holds a lock."""


class LockHolder(LockIdentity, total=False):
    """What a lock file says of its holder; empty while it says nothing."""

    who: str  # user@machine
    what: str  # the command
    since: str  # local time of the operator
    heard: str  # when the operator was heard last, by the host's monotonic clock


class LockArguments(Target):
    """How long to wait for the lock, how often to send a beat, and after what silence to let go."""

    wait: float
    beat: float
    lease: float
    holder: LockHolder


class Displacement(TypedDict, total=False):
    """Who ended it with `unlock`, or for how many seconds the operator was silent; nothing after a mere SIGTERM."""

    who: str
    what: str
    since: str
    silent: float


class LockReply(TypedDict, total=False):
    """`locked` first; true: `beat`s follow, and `displaced` is the last. False: `holder` and `silent`, or `problem`."""

    locked: bool
    holder: LockHolder
    silent: float | None  # how long the holder's operator has not been heard
    problem: str  # why no lock can be had there at all
    beat: int
    displaced: Displacement


class LockOrder(TypedDict):
    """The answer to a beat."""

    beat: int | None


LOCK = HostProgram[LockArguments, LockReply, LockOrder]("lock")

# unlock: report who holds the lock, and end that process.


class UnlockArguments(Target):
    """Whom to end."""

    force: bool  # also a holder whose operator is there
    gone: float  # silence after which an operator counts as gone
    by: LockHolder


class UnlockReply(TypedDict):
    """What became of the lock.

    free: nobody held it; the holder is then one that died with it. held: a living process holds it whose operator was
    heard less than `gone` ago, or it does not say. ended: it was ended, the lock is free now. survives: it did not
    end. elsewhere: no process seen here holds it: another user's, or one of a machine that shares the home directory.
    """

    state: Literal["free", "held", "ended", "survives", "elsewhere"]
    holder: LockHolder
    pid: int | None
    silent: float | None
    filesystem: str  # type of the file system that the lock lies on


UNLOCK = HostProgram[UnlockArguments, UnlockReply, NoOrder]("unlock")

# stop: end what a deployment runs on a host, engines before Ray, and prove that it is gone.


class RunFailure(TypedDict):
    """Why the run failed that is to be stopped, and how many seconds ago."""

    ago: float
    cause: str
    remedy: str


class _StopArguments(Target):
    grace: float  # between SIGTERM and SIGKILL of an engine


class StopArguments(_StopArguments, total=False):
    """What to end. With `wait`, Ray ends when an order says so, or not at all if none comes in that time."""

    run_id: str | None  # None: whichever
    ray_grace: float
    wait: float | None
    failure: RunFailure  # kept in the record


class StopFound(TypedDict):
    """How many processes there are."""

    event: Literal["found"]
    count: int


class StopStage(TypedDict):
    """A stage has something to end: engines, ray, after_stop."""

    event: Literal["stage"]
    stage: str
    signalled: int


class StopKilled(TypedDict):
    """SIGTERM did not do."""

    event: Literal["killed"]
    count: int


class StopWaiting(TypedDict):
    """The engines have ended; it waits for an order."""

    event: Literal["waiting"]
    ended: int
    seconds: float
    segments: int


class Survivor(TypedDict):
    """A process that did not end."""

    pid: int
    command: str
    state: str
    why: str


class PortLeft(TypedDict):
    """A recorded port on which something still listens."""

    port: int
    pid: int | None
    command: str


class AfterStop(TypedDict):
    """The end of the script after_stop."""

    exit_code: int | None  # None: not in time
    log: str


class StopFinish(TypedDict):
    """What was done once all was gone."""

    survivors: list[Survivor]
    after_stop: AfterStop | None
    unclosed: str  # why secrets or the record could not be changed, "" where they could


class StopDone(StopFinish):
    """The last message."""

    event: Literal["done"]
    ended: int
    seconds: float
    ports_left: list[PortLeft]
    segments: int  # removed from /dev/shm


StopReply = Union[StopFound, StopStage, StopKilled, StopWaiting, StopDone]


class StopOrder(TypedDict):
    """Go on with Ray: the engines of all hosts have ended."""

    go: str


STOP = HostProgram[StopArguments, StopReply, StopOrder](
    "stop", messages=50, message_bytes=64 * KIB, bytes_per_second=KIB
)

# cleanup: remove what a stopped deployment has left on a host.


class KeptPath(TypedDict):
    """What could not be removed, or was not ours to remove."""

    path: str
    why: str


class CleanupReply(TypedDict):
    """What was removed."""

    removed: list[str]
    bytes: int
    kept: list[KeptPath]


CLEANUP = HostProgram[Target, CleanupReply, NoOrder]("cleanup")
