"""Facts about a host. `Facts.parse` reads the reply of the probe, `remote/programs/probe.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from typing import Any, TypeVar

from flagscale_deploy.errors import HostError
from flagscale_deploy.remote.messages.probe import ProbedInterface, ProbedRecord, ProbeReply
from flagscale_deploy.remote.messages.stop import LockHolder

T = TypeVar("T")


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on a GPU, as nvidia-smi lists it; `user` and `command` come from /proc where it can be read."""

    pid: int
    memory_mib: int = 0
    user: str = ""
    command: str = ""
    run: str = ""
    """The value of our marker `FLAGSCALE_DEPLOY_RUN` in its environment, if it is one of ours."""
    since: float | None = None
    """Unix time of its start, by the host's clock."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi reports it; memory in MiB. None: the driver doesn't report it, or the GPU doesn't have it."""

    index: int
    uuid: str = ""
    name: str = ""
    memory_total_mib: int = 0
    memory_used_mib: int = 0
    processes: tuple[GpuProcess, ...] = ()
    ecc_uncorrected: int | None = None
    """Uncorrected memory errors since the driver was loaded."""
    persistence: bool | None = None
    mig: bool | None = None
    utilization: int | None = None
    """Percent of the driver's last sample period (up to a second) in which something ran on it."""


@dataclass(frozen=True)
class Interface:
    """A network interface with its IPv4 and IPv6 addresses, without prefix lengths."""

    name: str
    addresses: tuple[str, ...] = ()
    mtu: int = 0
    up: bool = True
    speed: int | None = None
    """Mbit/s as the driver reports it, None where it does not."""


@dataclass(frozen=True)
class ListeningPort:
    """A TCP port in use on the host. `run` is our marker if the holder is ours and can be read."""

    port: int
    address: str = ""
    pid: int | None = None
    command: str = ""
    run: str = ""


@dataclass(frozen=True)
class ModelFiles:
    """A model's directory on a host. `problem` says why it could not be read; the other fields are then empty.

    `config` is `config.json`. `hashes` maps the names of small files (configuration, tokenizer, code) to their SHA-256,
    and names of those above 32 MiB to their size (`N bytes`). `weights` maps weight files to their sizes in bytes.
    `indexed` are the weight files that must exist, by an index or by the names of the parts (`-00001-of-00004`).
    `total` is the size of the tensors in bytes according to the index. `torn` maps incomplete files to what is wrong;
    `pointers` names those that are pointers of Git LFS.
    """

    path: str
    problem: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    indexed: tuple[str, ...] = ()
    total: int | None = None
    torn: Mapping[str, str] = field(default_factory=dict)
    pointers: tuple[str, ...] = ()
    chat_template: bool = False
    """Whether the tokenizer's configuration, or a file beside it, contains one."""


@dataclass(frozen=True)
class HeldLock:
    """A deployment's lock that a living process holds on the host; `holder` is what the lock file says about it."""

    deployment: str
    pid: int
    holder: LockHolder = field(default_factory=LockHolder)


@dataclass(frozen=True)
class ForeignRay:
    """A process of a Ray cluster that is not ours (`raylet`, `gcs_server`)."""

    pid: int
    user: str = ""
    command: str = ""


TLS_FLAGS = ("ssl-certfile", "ssl-keyfile", "ssl-ca-certs")
"""vLLM's flags that name a file."""


@dataclass(frozen=True)
class TlsFile:
    """A certificate or key that the probe looked at.

    `problem` says why it cannot be read ("" where it can). `expires` is a Unix time, None for what is no certificate.
    `names` are the DNS names and IP addresses that the certificate is valid for; `hash` tells certificates apart.
    """

    problem: str = ""
    mode: int = 0
    expires: float | None = None
    names: tuple[str, ...] = ()
    self_signed: bool = False
    hash: str = ""


@dataclass(frozen=True)
class Facts:
    """The probe's reply. Sizes in bytes unless a name says otherwise; `clock` is the host's Unix time in seconds.

    `python`, `ray`, `vllm`, `torch`, `router` (vllm-router), `nixl` and `aiohttp` are versions in the environment that
    scripts will run in (venv, before_start), None where it is not installed. `deployments` are the `record.json` of
    every deployment recorded for this host.
    """

    user: str = ""
    uid: int = 0
    home: str = ""
    hostname: str = ""
    boot_id: str = ""
    probe_python: str = ""
    python: str | None = None
    ray: str | None = None
    vllm: str | None = None
    torch: str | None = None
    router: str | None = None
    nixl: str | None = None
    aiohttp: str | None = None
    all2all: tuple[str, ...] = ()
    """Packages of all-to-all backends in that environment, by the names that Python imports (`deep_ep`)."""
    parser: str | None = None
    """Identifies the code of vLLM's command line: where it is equal, the same flags are known."""
    environment_error: str | None = None
    gpus: tuple[Gpu, ...] = ()
    gpu_error: str | None = None
    driver_version: str | None = None
    interfaces: tuple[Interface, ...] = ()
    default_address: str | None = None
    """The source address of the default route."""
    ports: tuple[ListeningPort, ...] = ()
    cpus: int = 0
    memory_total: int = 0
    memory_available: int = 0
    disk_free: int = 0
    """Free space of the file system that holds the home directory."""
    tmp_free: int = 0
    shm_total: int = 0
    shm_free: int = 0
    open_files: int = -1
    """How many files a process may open (RLIMIT_NOFILE, hard); -1 is no limit."""
    locked_memory: int = -1
    """Bytes a process may lock in memory (RLIMIT_MEMLOCK, hard); -1 is no limit."""
    unwritable: tuple[str, ...] = ()
    """Which of the home directory, /tmp and /dev/shm the user can't write to."""
    sees_everyone: bool = True
    """Whether /proc shows the processes of other users (not where it is mounted with hidepid)."""
    infiniband: tuple[str, ...] = ()
    """InfiniBand and RoCE devices with an active port."""
    hostname_addresses: tuple[str, ...] = ()
    """What the host's own name resolves to on the host; empty where it does not, or not in time."""
    resolver_seconds: float = 0.0
    """How long the resolver took for an external name (the one Ray asks for), measured up to 2 s."""
    noise: str = ""
    """The beginning of what the login shell printed before our program's reply."""
    models: tuple[ModelFiles, ...] = ()
    """The directories that the probe was asked to look at."""
    locks: tuple[HeldLock, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict)
    """How many live processes carry each marker `<deployment>/<run_id>` of ours."""
    foreign_ray: tuple[ForeignRay, ...] = ()
    boot: str = ""
    """What starts the user's programs after a boot: systemd or crontab. "" where nothing does, or where the probe was
    not asked (only `deploy.restart.boot` asks)."""
    boot_problem: str = ""
    """Why nothing does."""
    clock: float = 0.0
    asked_at: float = 0.0
    """The operator's Unix time when the reply came: what `clock` is compared with."""
    deployments: tuple[ProbedRecord, ...] = ()
    kept: str = ""
    """What the host keeps of the planned deployment's run, where it speaks for it (`plan/kept.py`)."""
    tls_files: Mapping[str, TlsFile] = field(default_factory=dict)
    """Files by path, as written in the configuration."""

    @classmethod
    def parse(cls, answer: ProbeReply) -> Facts:
        """Return the facts in a probe's reply; unknown keys are ignored (a newer probe may send more).

        Raises ValueError for an address that is none.
        """
        values = _known_values(cls, answer)
        values["gpus"] = tuple(
            replace(
                _make(Gpu, gpu), processes=tuple(_make(GpuProcess, process) for process in gpu.get("processes", ()))
            )
            for gpu in answer.get("gpus", ())
        )
        values["interfaces"] = parse_interfaces(answer.get("interfaces", ()))
        values["ports"] = tuple(_make(ListeningPort, port) for port in answer.get("ports", ()))
        values["models"] = tuple(
            replace(
                _make(ModelFiles, files),
                indexed=tuple(files.get("indexed", ())),
                pointers=tuple(files.get("pointers", ())),
            )
            for files in answer.get("models", ())
        )
        values["locks"] = tuple(_make(HeldLock, lock) for lock in answer.get("locks", ()))
        values["foreign_ray"] = tuple(_make(ForeignRay, process) for process in answer.get("foreign_ray", ()))
        values["deployments"] = tuple(answer.get("deployments", ()))
        values["unwritable"] = tuple(answer.get("unwritable", ()))
        values["infiniband"] = tuple(answer.get("infiniband", ()))
        values["all2all"] = tuple(answer.get("all2all", ()))
        values["hostname_addresses"] = checked_addresses(answer.get("hostname_addresses", ()))
        if values.get("default_address") is not None:
            checked_addresses((values["default_address"],))
        values["tls_files"] = {
            path: replace(_make(TlsFile, file), names=tuple(file.get("names", ())))
            for path, file in answer.get("tls_files", {}).items()
        }
        return cls(**values)

    def interface_of(self, address: str) -> str | None:
        """Return the name of the interface that has an address, None if there is none."""
        return next((interface.name for interface in self.interfaces if address in interface.addresses), None)


@dataclass(frozen=True)
class Observation:
    """The facts of a host, or the error that kept us from reading them; exactly one of the two is set."""

    host: str
    facts: Facts | None = None
    error: HostError | None = field(default=None, compare=False)


def parse_interfaces(answer: Sequence[ProbedInterface]) -> tuple[Interface, ...]:
    """Return the interfaces that a host reports. Raises ValueError for an address or a name that is none."""
    for name in (interface["name"] for interface in answer):
        if not name.isprintable():  # it becomes a variable of scripts
            raise ValueError(f"it reports an interface {name!r}")
    return tuple(
        replace(_make(Interface, interface), addresses=checked_addresses(interface.get("addresses", ())))
        for interface in answer
    )


def checked_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses that a host reports. Raises ValueError for one that is none."""
    checked = tuple(addresses)
    for address in checked:
        ip_address(str(address))
    return checked


def _known_values(cls: type[Any], answer: Mapping[str, object]) -> dict[str, Any]:
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in answer.items() if key in names}


def _make(cls: type[T], answer: Mapping[str, object]) -> T:
    return cls(**_known_values(cls, answer))
