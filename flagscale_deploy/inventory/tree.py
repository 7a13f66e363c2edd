"""Groups and hosts while a file is being read, related by Ansible's rules.

Every inventory has the groups `all` and `ungrouped`; a group without a parent is a child of `all`; a host in no other
group is in `ungrouped` (docs.ansible.com, "How to build your inventory", default groups).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flagscale_deploy.errors import MOST_FAULTS, Fault, InputError
from flagscale_deploy.inventory.model import Group
from flagscale_deploy.inventory.ranges import MOST_HOSTS
from flagscale_deploy.support.quote import quoted

ALL, UNGROUPED = "all", "ungrouped"
MOST_NAMED = 5 * MOST_HOSTS
"""How often hosts may be named, in all groups together."""
MOST_ABOVE = 200
"""How many groups may hold one group."""
MOST_PLACES = 2_000_000
"""How often hosts may be in groups, directly and through child groups."""


@dataclass(frozen=True)
class Located:
    """A value and the place it was written: `hosts.yaml:12: all.vars.gpus`."""

    value: object
    where: str


Variables = dict[str, Located]


class Faults(list[Fault]):
    """What is wrong with a file. Raises InputError as soon as that is more than anybody reads."""

    def append(self, fault: Fault) -> None:
        """Add a fault, once."""
        if fault not in self:
            super().append(fault)
        if len(self) > MOST_FAULTS:
            raise InputError(self)

    def __iadd__(self, faults: Iterable[Fault]) -> Faults:  # type: ignore[override,misc]
        """Add faults."""
        for fault in faults:
            self.append(fault)
        return self


def plain_values(variables: Mapping[str, Located]) -> dict[str, object]:
    """Return the variables without their places."""
    return {name: variable.value for name, variable in variables.items()}


@dataclass
class GroupNode:
    """A group being read. `depth` is the length of its longest path from `all`."""

    name: str
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    parents: list[str] = field(default_factory=list)
    variables: Variables = field(default_factory=dict)
    priority: int = 1


class Tree:
    """The groups and hosts of one inventory, in the order in which the file names them."""

    def __init__(self, source: str = "inventory") -> None:
        self.source = source
        self.groups: dict[str, GroupNode] = {}
        self.hosts: dict[str, Variables] = {}
        self._named = 0
        self.add_group(ALL)
        self.add_group(UNGROUPED)
        self.add_child(ALL, UNGROUPED)

    def add_group(self, name: str) -> GroupNode:
        """Return a group, made if it is new."""
        return self.groups.setdefault(name, GroupNode(name))

    def add_child(self, parent: str, child: str) -> None:
        """Put a group into another. Raises ValueError where that would close a circle."""
        if child in self.groups[parent].children:
            return
        if child == ALL:
            raise ValueError(f"group 'all' cannot be inside {quoted(parent)}: it holds every group")
        if child == parent or child in self.ancestors(parent):
            raise ValueError(
                f"group {quoted(child)} cannot be inside {quoted(parent)}, which is itself inside {quoted(child)}"
            )
        self.groups[parent].children[child] = None
        self.groups[child].parents.append(parent)

    def add_host(self, name: str, group: str, port: Located | None = None) -> Variables:
        """Put a host into a group and return its variables.

        The port of `host:port` counts only where the host is named first, as in Ansible. Raises InputError where ranges
        name more hosts than any inventory has.
        """
        self._named += 1
        if self._named > MOST_NAMED or len(self.hosts) > MOST_HOSTS:
            raise InputError.at(name, f"the inventory names more than {MOST_HOSTS:,} hosts", "correct its ranges")
        if name not in self.hosts:
            self.hosts[name] = {} if port is None else {"ansible_port": port}
        self.groups[group].hosts.setdefault(name)
        return self.hosts[name]

    def ancestors(self, group: str) -> set[str]:
        """Return the groups above a group, `all` included once `settle` has run.

        Raises InputError for more than MOST_ABOVE.
        """
        above: set[str] = set()
        waiting = list(self.groups[group].parents)
        while waiting:
            name = waiting.pop()
            if name not in above:
                above.add(name)
                waiting.extend(self.groups[name].parents)
            if len(above) > MOST_ABOVE:
                problem = f"group {quoted(group)} is inside more than {MOST_ABOVE} groups"
                raise InputError.at(self.source, problem, "nest them less deeply")
        return above

    def settle(self) -> None:
        """Apply the rules for `all` and `ungrouped`; called once, when everything was read."""
        for name, group in self.groups.items():
            if name != ALL and not group.parents:
                self.add_child(ALL, name)
        by_host = self.groups_by_host()
        ungrouped = self.groups[UNGROUPED].hosts
        for host in self.hosts:
            grouped = bool(by_host[host] - {ALL, UNGROUPED})
            if grouped and host in ungrouped:
                del ungrouped[host]
            elif not grouped:
                ungrouped.setdefault(host)

    def groups_by_host(self) -> dict[str, set[str]]:
        """Return for each host the groups that it is in, directly or through a child group."""
        by_host: dict[str, set[str]] = {host: set() for host in self.hosts}
        places = 0
        for name, group in self.groups.items():
            above = {name} | self.ancestors(name) if group.hosts else set()
            places += len(above) * len(group.hosts)
            if places > MOST_PLACES:
                problem = f"its hosts are in groups more than {MOST_PLACES:,} times"
                raise InputError.at(self.source, problem, "nest the groups less deeply")
            for host in group.hosts:
                by_host[host] |= above
        return by_host

    def depths(self) -> dict[str, int]:
        """Return for each group the length of its longest path from `all`."""
        depths = dict.fromkeys(self.groups, 0)
        above = {name: len(group.parents) for name, group in self.groups.items()}
        ready = [name for name, parents in above.items() if not parents]
        while ready:
            name = ready.pop()
            for child in self.groups[name].children:
                depths[child] = max(depths[child], depths[name] + 1)
                above[child] -= 1
                if not above[child]:
                    ready.append(child)
        return depths

    def freeze(self, own: Mapping[str, Mapping[str, object]]) -> Iterator[Group]:
        """Yield the groups as the model has them; `own` are the variables of each."""
        for name, node in self.groups.items():
            yield Group(name, tuple(node.hosts), tuple(node.children), own.get(name, {}))
