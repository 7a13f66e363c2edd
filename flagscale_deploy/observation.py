"""What was seen on a host. `Facts.parse` reads the probe's answer; the probe itself is `remote/probe.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi reports it; memory in MiB."""

    index: int
    uuid: str = ""
    name: str = ""
    memory_total_mib: int = 0
    memory_used_mib: int = 0
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Interface:
    """A network interface with its IPv4 and IPv6 addresses, without prefix lengths."""

    name: str
    addresses: tuple[str, ...] = ()
    mtu: int = 0
    up: bool = True


@dataclass(frozen=True)
class ListeningPort:
    """A TCP port in use on the host. `run` is our marker if the holder is ours and could be read."""

    port: int
    address: str = ""
    pid: int | None = None
    command: str = ""
    run: str = ""


@dataclass(frozen=True)
class Facts:
    """The probe's answer. Sizes in bytes unless a name says otherwise; `clock` is the host's Unix time in seconds.

    `python`, `ray`, `vllm` and `router` (vllm-router) are versions in the environment that scripts will run in (venv,
    before_start), None where the thing is not there. `deployments` are the `record.json` of every deployment recorded
    for this host.
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
    router: str | None = None
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
    clock: float = 0.0
    deployments: tuple[Mapping[str, Any], ...] = ()

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
        known["deployments"] = tuple(answer.get("deployments", ()))
        return cls(**known)

    @property
    def ports_in_use(self) -> frozenset[int]:
        return frozenset(port.port for port in self.ports)

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
