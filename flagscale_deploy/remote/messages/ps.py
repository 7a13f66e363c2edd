"""`ps`: what runs on a host, of whichever deployment and user; answers within 30 s."""

from __future__ import annotations

from flagscale_deploy.remote.messages.history import HistoryEvent
from flagscale_deploy.remote.messages.probe import ProbedGpu
from flagscale_deploy.remote.messages.program import MIB, HostProgram, NoOrder, TypedDict
from flagscale_deploy.remote.messages.status import InspectReply


class PsArguments(TypedDict):
    """What to look at."""

    host: str
    gpus: bool  # whether to run nvidia-smi


class OwnDeployment(TypedDict):
    """A deployment of our own user, with or without a record."""

    deployment: str
    host: str  # this host's name in the deployment's inventory
    seen: InspectReply
    last_event: HistoryEvent | None  # the newest line of history.jsonl


class OthersDeployment(TypedDict):
    """What another user runs: a deployment, or without its name engines and Ray."""

    user: str
    deployment: str  # "" where its processes do not let us read their environment
    processes: int
    since: float  # Unix time of the oldest one's start
    models: list[str]  # of its record, where that may be read
    endpoint: str


class PsReply(TypedDict):
    """What runs here."""

    user: str  # ours
    deployments: list[OwnDeployment]
    left_out: int  # number of deployments beyond 100
    others: list[OthersDeployment]  # 100 at most
    gpus: list[ProbedGpu]
    gpu_error: str | None


PS = HostProgram[PsArguments, PsReply, NoOrder]("ps", message_bytes=4 * MIB)
