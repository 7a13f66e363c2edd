"""What looks at servers: `inspect` for all of a deployment, `serving` for one address. `chat` asks for a completion."""

from __future__ import annotations

from typing import Literal, Mapping, Sequence

from flagscale_deploy.remote.messages.program import HostProgram, NoOrder, Target, TypedDict
from flagscale_deploy.remote.messages.record import Record, RecordedProcess
from flagscale_deploy.remote.messages.run import RayNodesReply

# inspect: the record, and what of it is there; answers within 25 s.


class _InspectArguments(Target):
    ask: bool  # ask servers for a token, and Ray for its nodes


class InspectArguments(_InspectArguments, total=False):
    """Where to look."""

    token: bool  # False: with `ask`, servers are asked for /health and metrics only


class InspectedProcess(RecordedProcess):
    """A recorded process."""

    alive: bool
    stopped: bool  # by SIGSTOP or a debugger


class RestartState(TypedDict, total=False):
    """What a supervisor says of its server, in `restart/<run id>/<script>.json`."""

    state: Literal["running", "restarting", "spare", "gave up", "ended"]
    restarts: int
    in_a_row: int
    max: int  # in a row
    last_restart: float | None
    last_exit: str  # in words
    healthy: bool
    why: str
    evidence: str  # folder below evidence/, of the last time that it hung
    pid: int  # the server's
    start_ticks: int | None
    boot_id: str
    generation: int  # which start of its group it belongs to
    hosts: list[str]  # of the driver of a group with spares: where its ranks are, in rank order


RestartEventKind = Literal["restarting", "restored", "waiting", "gave up"]
"""`waiting`: its group waits for what only a person can do."""


class RestartEvent(TypedDict):
    """What becomes of a server that is restarted: a line of the history, and what `deploy.restart.notify` gets."""

    schema: int  # 1
    deployment: str
    server: str  # its name; ray-head or ray-worker for a Ray node
    host: str
    event: RestartEventKind
    reason: str  # why it is restarted, or given up, in words
    attempt: int  # how many restarts in a row
    max: int  # in a row
    evidence: str  # folder on this host with what was kept of the server, "" for none
    time: float  # Unix time


class InspectedRestarts(RestartState, total=False):
    """The same, and what of it is there."""

    supervised: bool  # the supervisor lives
    alive: bool  # the server lives


class _InspectedServer(TypedDict):
    alive: bool
    health: int | None  # status of /health, None: no answer
    token: bool | None  # whether a one-token completion came
    why: str  # why it is not ready
    metrics: dict[str, float] | None  # see remote/engine/metrics.py
    restarts: InspectedRestarts | None  # None: it has no supervisor


class InspectedServer(_InspectedServer, total=False):
    """A server of this host. `finished` and `at` are a program's: it ended well; the address that answered.

    With `foreign` it was not asked, since a process that is not of the deployment has its port.
    """

    ready_at: float | None
    finished: bool
    foreign: bool
    at: str | None


class _InspectReply(TypedDict):
    record: Record | None
    processes: list[InspectedProcess]
    live: int  # processes of the deployment, by marker, session and descent
    ranks: dict[str, int]  # those of them that play a part, by part
    instances: dict[str, InspectedServer]  # instances and routers driven from this host, by name
    ray: RayNodesReply | None


class InspectReply(_InspectReply, total=False):
    """What is there; `instances` and `ray` only with `ask`, `others` without a record only."""

    others: list[str]  # names of deployments that have a record here; 100 at most
    ray_node: InspectedRestarts  # this host's Ray node, where it is restarted when it dies


INSPECT = HostProgram[InspectArguments, InspectReply, NoOrder]("inspect")

# serving: whether a program of the user's own serves at an address of this host.


class ServingArguments(Target):
    """Where it should serve."""

    address: str  # URL


class _ServingReply(TypedDict):
    serves: bool  # a process of the deployment answers there
    why: str  # why not; "" where the address is not of this host


class ServingReply(_ServingReply, total=False):
    """With `foreign`, a process that is not of the deployment has the port."""

    foreign: bool


SERVING = HostProgram[ServingArguments, ServingReply, NoOrder]("serving")

# chat


class _ChatArguments(Target):
    server: str  # its name
    messages: Sequence[Mapping[str, str]]
    parameters: Mapping[str, object]  # of the request, such as max_tokens


class ChatArguments(_ChatArguments, total=False):
    """A question to a server of this host."""

    stream: bool  # whether the text comes in pieces as it is made; `answer` has none then


class ChatMessage(TypedDict, total=False):
    """What the model says."""

    role: str
    content: str | None  # may be missing, beside tool calls


class _ChatChoice(TypedDict):
    message: ChatMessage


class ChatChoice(_ChatChoice, total=False):
    """An answer."""

    index: int
    finish_reason: str | None


class ChatUsage(TypedDict, total=False):
    """What it took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(TypedDict, total=False):
    """The server's JSON, as far as we know it."""

    id: str
    object: str
    created: int  # Unix time
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class ChatReply(TypedDict, total=False):
    """Pieces of the text, if it is streamed; then one of the others."""

    piece: str

    answer: ChatCompletion
    problem: str


CHAT = HostProgram[ChatArguments, ChatReply, NoOrder]("chat")
