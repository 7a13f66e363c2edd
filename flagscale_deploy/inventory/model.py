"""Hosts and groups, whatever form of inventory they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from flagscale_deploy.errors import Fault
from flagscale_deploy.secrets import Secret

ConnectionKind = Literal["ssh", "local"]
HostKeyChecking = Literal["strict", "accept-new", "off"]

HEAD_GROUP = "head"


@dataclass(frozen=True)
class Host:
    """One machine, as the inventory describes it.

    `None` means that the inventory does not set it: then `~/.ssh/config` (port, user, identity_file, proxy_jump,
    host_key_checking, known_hosts) or the probe (gpus, node_ip, interface) decides.
    """

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None
    host_key_checking: HostKeyChecking | None = None
    known_hosts: str | None = None
    ssh_options: str | None = None
    """Other options of ssh(1), as on its command line: `-o ProxyCommand=… -F file`."""
    connection: ConnectionKind = "ssh"
    python: str = "python3"
    gpus: int | None = None
    cpus: int | None = None
    """CPUs that Ray is started with; None lets Ray count them."""
    type: str = "gpu"
    node_ip: str | None = None
    interface: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, Secret] = field(default_factory=dict)
    """Those of its variables whose names say that they are secret (`HF_TOKEN`): they travel in files only."""
    before_start: str | None = None
    venv: str | None = None
    container: str | None = None
    vars: Mapping[str, object] = field(default_factory=dict)
    """Every variable of the host after precedence, as Ansible would show it (`ansible-inventory --list`)."""


@dataclass(frozen=True)
class Group:
    """A group of hosts. `hosts` and `children` are the direct ones; `vars` are the group's own."""

    name: str
    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    vars: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order of the file, and their groups (`all` and `ungrouped` included)."""

    hosts: tuple[Host, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)
    source: str = "inventory"
    options: tuple[str, ...] | None = None
    """The words of a command line that name these hosts again. None: `-i`, with `source`."""
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    """What is wrong with the settings of hosts, by their names: of a host that is not used, nobody has to know."""
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    """Notes for `-v`."""

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Host:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Host]:
        return {host.name: host for host in reversed(self.hosts)}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the hosts, in the order of the file."""
        return tuple(host.name for host in self.hosts)

    @cached_property
    def head(self) -> Host:
        """Return the first host of group `head`, else the first host."""
        members = self.members(HEAD_GROUP)
        return next((host for host in self.hosts if host.name in members), self.hosts[0])

    def members(self, group: str) -> frozenset[str]:
        """Return the names of the hosts in a group or any of its descendants; none for an unknown group."""
        names: set[str] = set()
        waiting, seen = [group], set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.groups:
                continue
            seen.add(name)
            names.update(self.groups[name].hosts)
            waiting.extend(self.groups[name].children)
        return frozenset(names)
