"""`probe`: what a host is and has. Changes nothing on the host; answers after 20 s at the latest."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import MIB, HostProgram, NoOrder, TypedDict
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.messages.stop import LockHolder


class _ProbeArguments(TypedDict):
    host: str
    venv: str | None
    before_start: str | None
    env: dict[str, str]  # environment of the scripts
    exports: str  # shell: variables made of those of the host
    models: list[str]  # paths to look at
    tls_files: list[str]


class ProbeArguments(_ProbeArguments, total=False):
    """What to look at."""

    deployment: str  # the one that is planned
    hosts: list[str]  # all that are probed with this one
    boot: Literal["host", "container"]  # where it matters whether the host's part comes back after a reboot


class ProbedGpuProcess(TypedDict):
    """A compute process on a GPU; user, command, run and since are empty where /proc does not show it."""

    pid: int
    memory_mib: int
    user: str
    command: str
    run: str  # our marker `<deployment>/<run_id>`
    since: float | None


class ProbedGpu(TypedDict):
    """A GPU as nvidia-smi reports it; None: the driver does not say, or the GPU has no such thing."""

    index: int
    uuid: str
    name: str
    memory_total_mib: int
    memory_used_mib: int
    processes: list[ProbedGpuProcess]
    ecc_uncorrected: int | None  # errors since the driver was loaded
    persistence: bool | None
    mig: bool | None
    utilization: int | None  # percent of the last sample period in which a kernel ran


class ProbedInterface(TypedDict):
    """A network interface."""

    name: str
    addresses: list[str]  # IPv4 and IPv6, without prefix lengths
    mtu: int
    up: bool  # enabled, and with a carrier
    speed: int | None  # Mbit/s, None where the driver does not tell


class ProbedPort(TypedDict):
    """A listening TCP port; pid None where /proc does not show its holder."""

    port: int
    address: str
    pid: int | None
    command: str
    run: str  # our marker


class ProbedModel(TypedDict):
    """A model's directory or file; where `problem` is not "", the rest is empty."""

    path: str
    problem: str
    config: dict[str, object]  # config.json
    hashes: dict[str, str]  # SHA-256 of small files by name; of one above 32 MiB `N bytes`
    weights: dict[str, int]  # sizes by name
    indexed: list[str]  # the weight files that there have to be
    total: int | None  # size of the tensors by the index
    torn: dict[str, str]  # what is wrong with files that are not whole, by name
    pointers: list[str]  # weight files that are pointers of Git LFS: their content was not fetched
    chat_template: bool


class ProbedLock(TypedDict):
    """A deployment's lock that a process holds."""

    deployment: str
    pid: int
    holder: LockHolder


class ProbedRay(TypedDict):
    """A raylet or gcs_server that no deployment of ours started."""

    pid: int
    user: str
    command: str


class Certificate(TypedDict, total=False):
    """What the first certificate of a PEM file says; nothing where there is none."""

    hash: str  # SHA-256 of the file
    expires: float
    names: list[str]  # DNS names and IP addresses
    self_signed: bool


class ProbedTlsFile(Certificate):
    """A certificate or key."""

    problem: str  # why it cannot be read, "" where it can
    mode: int


class ProbedRecord(Record, total=False):
    """A record; of one that cannot be read only `deployment` and `broken`."""

    broken: str  # why


class ProbedIdentity(TypedDict):
    """Who we are on the host."""

    user: str
    uid: int
    home: str
    hostname: str
    boot_id: str
    probe_python: str  # version of the Python that runs the probe


class ProbedNetwork(TypedDict):
    """The host's network."""

    interfaces: list[ProbedInterface]
    default_address: str | None  # source address of the default route
    infiniband: list[str]  # InfiniBand and RoCE devices with an active port
    ports: list[ProbedPort]


class ProbedMemory(TypedDict):
    """Memory of the machine, or what the control groups that we are in leave of it."""

    memory_total: int
    memory_available: int


class ProbedCapacity(ProbedMemory):
    """Processors, memory, disks."""

    cpus: int
    disk_free: int  # of the file system that holds the home directory
    tmp_free: int
    shm_total: int
    shm_free: int


class ProbedLimits(TypedDict):
    """What our user may do."""

    open_files: int  # RLIMIT_NOFILE, hard; -1: no limit
    locked_memory: int  # RLIMIT_MEMLOCK, hard; -1: no limit
    unwritable: list[str]  # of the home directory, /tmp and /dev/shm
    sees_everyone: bool  # whether /proc shows other users' processes


class ProbedLeftovers(TypedDict):
    """What is there beside what records say."""

    locks: list[ProbedLock]
    runs: dict[str, int]  # live processes by marker
    foreign_ray: list[ProbedRay]


class ProbedVersions(TypedDict):
    """Versions in the environment of the scripts: None where the thing is not there, or "unknown"."""

    python: str | None
    ray: str | None
    vllm: str | None
    torch: str | None
    router: str | None  # vllm-router
    nixl: str | None
    aiohttp: str | None
    all2all: list[str]  # packages of all-to-all backends, by the names that Python imports
    parser: str | None  # a name for the code of vLLM's command line
    environment_error: str | None


class ProbedNames(TypedDict):
    """How names are resolved."""

    hostname_addresses: list[str]
    resolver_seconds: float  # for a name outside, 2 at most


class ProbedGpus(TypedDict):
    """What nvidia-smi says; no GPUs and no error where there is no nvidia-smi."""

    gpus: list[ProbedGpu]
    gpu_error: str | None
    driver_version: str | None


class ProbedRun(TypedDict, total=False):
    """What the hosts of a deployment keep of the run that was not stopped."""

    kept: str  # of `runs/<run id>.json`: by its head, or its first host that is probed; "" elsewhere


class ProbeReply(
    ProbedRun,
    ProbedIdentity,
    ProbedNetwork,
    ProbedCapacity,
    ProbedLimits,
    ProbedLeftovers,
    ProbedVersions,
    ProbedNames,
    ProbedGpus,
):
    """What the host is and has: the fields of `facts/model.py`'s `Facts`."""

    models: list[ProbedModel]
    tls_files: dict[str, ProbedTlsFile]  # by path, as it was asked for
    deployments: list[ProbedRecord]
    boot: str  # systemd or crontab; "": nothing starts something of ours when the host comes up, or not asked
    boot_problem: str
    clock: float


PROBE = HostProgram[ProbeArguments, ProbeReply, NoOrder]("probe", message_bytes=8 * MIB)
