"""What brings a deployment up: `reserve`, `launch`, `watch`, `watch_ranks`, `ray_nodes`, `install_boot_entry`."""

from __future__ import annotations

from flagscale_deploy.remote.messages.program import MIB, HostProgram, NoOrder, RunTarget, Target, TypedDict
from flagscale_deploy.remote.messages.record import Record

# reserve: take a run's GPUs and ports on a host, or name who has them; or give them back.


class ReserveArguments(RunTarget, total=False):
    """Either `record` and `exclusive`, or `release`, which puts the record before back if nothing was started.

    With `look` and a record, only who has its name and what is exclusive is reported.
    """

    record: Record
    exclusive: list[str]  # what no other run may have: gpus, ports
    release: bool
    look: bool


class _Conflict(TypedDict):
    what: str  # GPU 3, port 8000, deployment qwen, the name qwen
    by: str  # who has it, in words


class Conflict(_Conflict, total=False):
    """What the run needs and somebody else has."""

    own: bool  # another run of the very deployment


class ReserveReply(TypedDict):
    """With `taken` empty, the host's record is this run's from now on, or what was reserved is released."""

    taken: list[Conflict]


RESERVE = HostProgram[ReserveArguments, ReserveReply, NoOrder]("reserve")

# launch: write files on a host and run one script there, in a session of its own that carries the run's marker.


class ScriptArguments(RunTarget):
    """A script of a run, and how it is started."""

    script: str
    role: str
    detached: bool  # whether it goes on running
    timeout: float  # for a script that is not detached; then its session is killed
    session: (
        str  # names the run's temporary directory, /tmp/fsd-<uid>-<session>; a host takes another where that is taken
    )


class LaunchArguments(ScriptArguments):
    """The same with the record and the files that it needs."""

    record: Record
    files: dict[str, tuple[str, str]]  # text and octal mode by path in the state directory


class LaunchReply(TypedDict, total=False):
    """`log`, `pid` and `start_ticks` when the script runs, then `exit_code` and `tail`."""

    log: str
    pid: int
    start_ticks: int | None
    exit_code: int | None  # None: a detached script goes on running
    tail: list[str]  # the last 40 lines of the log


LAUNCH = HostProgram[LaunchArguments, LaunchReply, NoOrder]("launch", message_bytes=4 * MIB)

# watch: wait on the driver host until an instance is ready; report its log meanwhile.


class WatchedRestart(TypedDict):
    """A server that may be restarted once it was ready."""

    run_id: str
    script: str


class WatchedProgram(TypedDict):
    """A program of the user's own. Without addresses it is ready when it has joined Ray and lived for 5 s since."""

    addresses: list[str]


class WatchedTransfers(TypedDict):
    """Engines of prefill and decode pools behind a router, of which one has to count a transfer of KV cache."""

    urls: list[str]
    trust: str  # file of certificates, "" for the host's own


class _WatchArguments(Target):
    pid: int
    start_ticks: int | None
    log: str
    url: str  # "" for a process that answers nobody: it is watched until standard input ends
    model: str
    timeout: float


class WatchArguments(_WatchArguments, total=False):
    """An instance that starts: ready when it lives, /health is 200 and a one-token completion came back."""

    data_ranks: list[int]  # data-parallel ranks of which each is to answer
    transfers: WatchedTransfers
    restart: WatchedRestart
    program: WatchedProgram


class WatchReply(TypedDict, total=False):
    """`lines` as the log grows, `healthy` once; last one of the others, but for those that say more of it."""

    lines: list[str]
    healthy: bool
    ready: bool
    token: str  # with ready: the completion's text
    at: str  # with ready, of a program: the address that answered, "" for one without
    finished: bool  # a program without addresses ended with status 0
    dead: bool
    exit_status: int | None  # with dead, of a program
    oom: str  # with dead or finished: processes that the kernel killed for lack of memory, in words; "" for none
    foreign: str  # who else has the server's port, in words: it is not asked, and will not be ready
    untransferred: str  # why pools do not work together, within two minutes after the router was healthy
    timed_out: bool
    why: str  # with timed_out


WATCH = HostProgram[WatchArguments, WatchReply, NoOrder]("watch", message_bytes=8 * MIB, bytes_per_second=8 * MIB)

# watch_ranks: watch the processes of a run on one host while its engines start, until standard input ends.


class WatchRanksArguments(RunTarget, total=False):
    """Whose processes: those of all scripts of the run, or of some, where other groups have run for long."""

    scripts: list[str]


class LostRank(TypedDict):
    """A process that has ended."""

    pid: int
    part: str | None  # raylet, gcs_server, rank, engine-core
    title: str


class Stillness(TypedDict):
    """For how many seconds the processes of one engine have not read, and not used CPU time."""

    read: float
    used: float
    stopped: list[str]  # titles of those that are stopped, or wait for a disk


class WatchRanksReply(TypedDict, total=False):
    """`gone` and `oom` within a second of an end; `still` and `ranks` once a second."""

    gone: list[LostRank]
    oom: str  # as in WatchReply
    still: dict[str, Stillness]  # by the script that began the engine; "" has what Ray began
    ranks: dict[str, int]  # processes by part


WATCH_RANKS = HostProgram[WatchRanksArguments, WatchRanksReply, NoOrder]("watch_ranks")

# ray_nodes: what Ray counts, asked on the head.


class RayNodesReply(TypedDict, total=False):
    """What Ray counts, or `why` it does not answer."""

    nodes: dict[str, float]  # GPUs by address
    missing: list[str]  # addresses of nodes that are not there
    available: dict[str, float]  # free resources by name
    pending: float  # GPUs that placement groups wait for
    why: str


RAY_NODES = HostProgram[Target, RayNodesReply, NoOrder]("ray_nodes")

# permit_restarts: permit restarts of a host's Ray node, once the deployment is ready.


class PermitArguments(RunTarget):
    """Which scripts may be started again."""

    scripts: list[str]


class PermitReply(TypedDict):
    """Whether they may: not in a run that was stopped meanwhile."""

    permitted: bool


PERMIT_RESTARTS = HostProgram[PermitArguments, PermitReply, NoOrder]("permit_restarts")

# install_boot_entry: make the entry that runs boot.sh when the host comes up.


class BootEntryArguments(Target):
    """Whose part."""

    container: bool  # whether we are in one


class BootEntryReply(TypedDict, total=False):
    """One of the two."""

    by: str  # systemd or crontab
    why: str  # where the host has neither


INSTALL_BOOT_ENTRY = HostProgram[BootEntryArguments, BootEntryReply, NoOrder]("install_boot_entry")
