"""A deployment's record on a host: `record.json` in its state directory."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import TypedDict


class _RecordedProcess(TypedDict):
    role: str  # of the step that started it: engine, router, gate, ray-head, …
    pid: int
    start_ticks: int | None  # clock ticks between boot and its start; None: it had ended already
    boot_id: str  # the boot in which the pid means something
    log: str  # path
    script: str  # name of its file in scripts/


class RecordedProcess(_RecordedProcess, total=False):
    """A process that the launcher started: the leader of a script's session."""

    ready_at: float  # when its server was ready for the first time


class _RecordedServer(TypedDict):
    name: str
    model: str
    driver: str  # the host that it listens on
    port: int | None
    endpoint: str  # URL for clients
    local_url: str  # URL on its driver
    served_name: str
    script: str
    certificate: str | None  # file on its driver, where it serves TLS
    hosts: list[str]
    gpus: dict[str, list[int]]  # indexes by host


class _RecordedRank(TypedDict):
    name: str  # the driver's is the instance's
    number: int
    role: str  # driver, follower, dp, prefill, decode, spare
    host: str
    script: str
    gpus: list[int]
    local_url: str  # "" for one that answers nobody
    certificate: str | None  # file on its host, where it serves TLS
    data_rank: int | None  # the first of its data-parallel ranks, where the driver answers for them


class RecordedRank(_RecordedRank, total=False):
    """A process of an instance: what runs of it on one host."""

    worker_url: str  # URL on the data network, as a router calls it; missing in records of older versions


class RecordedServer(_RecordedServer, total=False):
    """An instance, or a router or gate, which has no more than the keys that are always there."""

    engine: str
    addresses: dict[str, str]  # where a program may answer: URL on its driver to the URL for clients
    replica: int | None
    pool: str  # prefill, decode; "" for a model without pools
    argv: list[str]  # its command line, without secrets
    ranks: list[RecordedRank]  # the driver first; missing in records of older versions
    spares: list[RecordedRank]  # hosts that may carry a rank of another one that is lost


class RecordedRay(TypedDict):
    """The Ray cluster of a deployment."""

    enabled: bool
    address: str


class RecordedVersions(TypedDict, total=False):
    """Versions that the probe found before the run."""

    python: str | None
    ray: str | None
    vllm: str | None


class RecordedFailure(TypedDict):
    """Why a run failed that was taken down for it; no secrets."""

    at: float
    cause: str
    remedy: str


class _RecordedChange(TypedDict):
    run_id: str  # of the change: what `update` calls it
    operator: str  # user@machine
    base: str  # id of the run or update whose configuration ran before
    groups: list[str]  # names of the groups that are changed just now; none between two steps
    step: Literal[
        "drain", "stop", "start", "return", ""
    ]  # begun of them: out of their router, ended, started, put back
    done: list[str]  # names of the groups that are as the change wants them, those that it removed too
    secrets: bool  # whether it gives groups other secrets


class RecordedChange(_RecordedChange, total=False):
    """What is changed of a running deployment, for as long as that is not over."""

    at: float  # when the step was begun; added by the host


class Record(TypedDict, total=False):
    """What a host knows of a deployment. A record may be of another version of this tool: any key may be missing."""

    # Sent by the operator
    schema: int
    deployment: str
    host: str
    digest: str  # of configuration, inventory and templates
    head: str
    hosts: list[str]
    operator: str  # user@machine
    roles: list[str]
    gpus: list[int]  # indexes of the GPUs that are taken here
    ports: dict[str, int]  # that are taken here, by use
    versions: RecordedVersions
    ray: RecordedRay
    secrets: list[str]  # names of variables
    secret_hash: str  # salt and scrypt hash of all secrets of the run; "" for none
    instances: list[RecordedServer]  # of all hosts
    routers: list[RecordedServer]  # and the gate

    # Added by the host
    run_id: str
    configuration: str  # id of the update whose configuration runs; missing while it is the run's own
    boot_id: str
    machine: str  # what the host calls itself
    processes: list[RecordedProcess]
    started_at: float
    oom_kills: int | None  # processes that the kernel had killed for lack of memory when the run began
    ray_temp_dir: str
    segments: dict[str, list[int]]  # path in /dev/shm to device and inode
    stopped_at: float
    stopped_by: str
    failure: RecordedFailure  # of the run that was stopped because it failed
    change: RecordedChange  # that is not over
    before: Record  # the record of the run before, until something was started
