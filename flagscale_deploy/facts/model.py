"""What was seen on a host. `Facts.parse` reads the probe's answer; the probe itself is `remote/programs/probe.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from flagscale_deploy.errors import HostError

T = TypeVar("T")


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on a GPU, as nvidia-smi lists it; `user` and `command` from /proc where it can be read."""

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
    """One GPU as nvidia-smi reports it; memory in MiB. None: the driver doesn't say, or the GPU has no such thing."""

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


@dataclass(frozen=True)
class Interface:
    """A network interface with its IPv4 and IPv6 addresses, without prefix lengths."""

    name: str
    addresses: tuple[str, ...] = ()
    mtu: int = 0
    up: bool = True
    speed: int | None = None
    """Mbit/s as its driver tells, None where it does not."""


@dataclass(frozen=True)
class ListeningPort:
    """A TCP port in use on the host. `run` is our marker if the holder is ours and could be read."""

    port: int
    address: str = ""
    pid: int | None = None
    command: str = ""
    run: str = ""


@dataclass(frozen=True)
class ModelFiles:
    """A model's directory as a host has it. `problem`: why it could not be read; then the rest is empty.

    `config` is `config.json`; `hashes` are by name the SHA-256 of the small files (configuration, tokenizer, code), or
    the size (`N bytes`) of one above 32 MiB; `weights` are the sizes in bytes of the weight files by name, `indexed`
    the weight files that there have to be: by an index, or by the names of the parts (`-00001-of-00004`). `total` is
    what the index says the tensors take in bytes; `torn` what is wrong, by name, with files that are not whole;
    `pointers` names those that are pointers of Git LFS.
    """

    path: str
    problem: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    indexed: tuple[str, ...] = ()
    total: int | None = None
    torn: Mapping[str, str] = field(default_factory=dict)
    pointers: tuple[str, ...] = ()
    chat_template: bool = False
    """Whether the tokenizer's configuration, or a file beside it, brings one."""


@dataclass(frozen=True)
class HeldLock:
    """A deployment's lock that a living process holds on the host; `holder` is what it wrote down of itself."""

    deployment: str
    pid: int
    holder: Mapping[str, Any] = field(default_factory=dict)


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
    """A certificate or key that was asked after: why it cannot be read ("" where it can), its mode, and in Unix time
    when it ends to be good (None for what is no certificate). `names` are the DNS names and IP addresses that it is
    for, `hash` tells certificates apart."""

    problem: str = ""
    mode: int = 0
    expires: float | None = None
    names: tuple[str, ...] = ()
    self_signed: bool = False
    hash: str = ""


@dataclass(frozen=True)
class Facts:
    """The probe's answer. Sizes in bytes unless a name says otherwise; `clock` is the host's Unix time in seconds.

    `python`, `ray`, `vllm`, `torch` and `router` (vllm-router) are versions in the environment that scripts will run in
    (venv, before_start), None where the thing is not there. `deployments` are the `record.json` of every deployment
    recorded for this host.
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
    parser: str | None = None
    """A name for the code of vLLM's command line: the same name reads the same flags."""
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
    """The most files a process may open (RLIMIT_NOFILE, hard); -1 is no limit."""
    locked_memory: int = -1
    """Bytes a process may lock in memory (RLIMIT_MEMLOCK, hard); -1 is no limit."""
    unwritable: tuple[str, ...] = ()
    """Those of the home directory, /tmp and /dev/shm that the user can't write to."""
    sees_everyone: bool = True
    """Whether /proc shows the processes of other users (it does not where it is mounted with hidepid)."""
    infiniband: tuple[str, ...] = ()
    """InfiniBand and RoCE devices with an active port."""
    hostname_addresses: tuple[str, ...] = ()
    """What the host's own name resolves to there; empty where it does not, or not in time."""
    resolver_seconds: float = 0.0
    """How long the resolver took over a name outside (the one Ray asks for); it is not waited for longer than 2 s."""
    noise: str = ""
    """The beginning of what the login printed before our program could answer."""
    models: tuple[ModelFiles, ...] = ()
    """The directories that were asked after."""
    locks: tuple[HeldLock, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict)
    """How many live processes carry each marker `<deployment>/<run_id>` of ours."""
    foreign_ray: tuple[ForeignRay, ...] = ()
    boot: str = ""
    """By what the host starts something of the user's when it comes up: systemd, crontab; "": by nothing, or not asked
    (only where `deploy.restart.boot` wants it)."""
    boot_problem: str = ""
    """Why by nothing."""
    clock: float = 0.0
    asked_at: float = 0.0
    """The operator's Unix time when the answer came: what `clock` is compared with."""
    deployments: tuple[Mapping[str, Any], ...] = ()
    tls_files: Mapping[str, TlsFile] = field(default_factory=dict)
    """By path, as the configuration has it."""

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Facts:
        """Facts from the probe's JSON; keys we don't know are ignored (a newer probe may say more)."""
        known = _known(cls, answer)
        known["gpus"] = tuple(
            Gpu(**{**_known(Gpu, gpu), "processes": tuple(_make(GpuProcess, p) for p in gpu.get("processes", ()))})
            for gpu in answer.get("gpus", ())
        )
        known["interfaces"] = tuple(
            Interface(**{**_known(Interface, each), "addresses": tuple(each.get("addresses", ()))})
            for each in answer.get("interfaces", ())
        )
        known["ports"] = tuple(_make(ListeningPort, port) for port in answer.get("ports", ()))
        known["models"] = tuple(
            replace(
                _make(ModelFiles, each),
                indexed=tuple(each.get("indexed", ())),
                pointers=tuple(each.get("pointers", ())),
            )
            for each in answer.get("models", ())
        )
        known["locks"] = tuple(_make(HeldLock, each) for each in answer.get("locks", ()))
        known["foreign_ray"] = tuple(_make(ForeignRay, each) for each in answer.get("foreign_ray", ()))
        for listed in ("deployments", "unwritable", "infiniband", "hostname_addresses"):
            known[listed] = tuple(answer.get(listed, ()))
        known["tls_files"] = {
            path: replace(_make(TlsFile, each), names=tuple(each.get("names", ())))
            for path, each in answer.get("tls_files", {}).items()
        }
        return cls(**known)

    def interface_of(self, address: str) -> str | None:
        """The name of the interface that holds an address."""
        return next((each.name for each in self.interfaces if address in each.addresses), None)


@dataclass(frozen=True)
class Observation:
    """Facts of a host, or the error that kept us from them; exactly one of the two is set."""

    host: str
    facts: Facts | None = None
    error: HostError | None = field(default=None, compare=False)


def _known(cls: type[Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    return {key: value for key, value in answer.items() if key in names}


def _make(cls: type[T], answer: Mapping[str, Any]) -> T:
    return cls(**_known(cls, answer))
