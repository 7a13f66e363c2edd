"""The short YAML form: `hosts:` as a list, with `defaults:` for all of them and `groups:` by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.assembly import assemble
from flagscale_deploy.inventory.document import Items, Section
from flagscale_deploy.inventory.keys import HOST_KEYS, make_host, nearest, shown, unknown_key
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.ranges import expand, split_login
from flagscale_deploy.inventory.tree import ALL, UNGROUPED, Faults, Located, Tree, Variables, plain_values
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.units import counted

_TOP = ("hosts", "defaults", "groups")
PER_HOST = ("address", "node_ip")
"""Keys that no two hosts share; in an entry with a range of hosts they may have a range of the same length."""


def looks_like_short(document: Mapping[object, object]) -> bool:
    """Return whether a document has a list of hosts at the top, which in Ansible's form would be a group `hosts`."""
    return "all" not in document and ("hosts" in document or "defaults" in document)


@dataclass
class _Reading:
    source: str
    tree: Tree = field(default_factory=Tree)
    hosts: list[Host | None] = field(default_factory=list)
    first_line: dict[str, int] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def where(self, line: int, path: str) -> str:
        """Return `hosts.yaml:12: hosts[0].gpus`."""
        return f"{self.source}:{line}: {path}"

    def fault(self, line: int, path: str, problem: str, remedy: str = "") -> None:
        """Add a fault."""
        self.faults.append(Fault(self.where(line, path), problem, remedy))


def parse_short(document: Section, source: str, faults: Sequence[Fault] = ()) -> Inventory:
    """Return the inventory of a document of this form; `faults` are those that its YAML already has.

    Raises InputError with every fault of the file.
    """
    reading = _Reading(source, faults=Faults(faults))
    for key in document:
        if key not in _TOP:
            where = reading.where(document.lines[key], str(key))
            reading.faults.append(unknown_key(key, _TOP, where))
    defaults = _defaults(reading, document)
    entries = document.get("hosts")
    if isinstance(entries, Items):
        for index, entry in enumerate(entries):
            _read_entry(reading, entry, entries.lines[index], f"hosts[{index}]", defaults)
    else:
        line = document.lines.get("hosts", document.line)
        reading.fault(
            line, "hosts", f"found {_kind(entries)}, expected a list of hosts", "write `hosts: [gpu01, gpu02]`"
        )
    _read_groups(reading, document)
    reading.tree.settle()
    return assemble(reading.tree, reading.hosts, reading.faults, source, {ALL: plain_values(defaults)})


def _defaults(reading: _Reading, document: Section) -> Variables:
    section = document.get("defaults")
    line = document.lines.get("defaults", document.line)
    if section is None:
        return {}
    if not isinstance(section, Section):
        reading.fault(line, "defaults", f"found {_kind(section)}, expected keys with values")
        return {}
    settings = _located(reading, section, "defaults")
    for key in [key for key in settings if key in ("name", *PER_HOST)]:
        setting = settings.pop(key)
        problem = f"{quoted(key)} belongs to one host"
        reading.faults.append(Fault(setting.where, problem, "write it in the entry of that host"))
    # Validated as if they were a host, so that a fault is found where every host overrides the default too.
    reading.faults += make_host("defaults", settings, {})[1]
    return {key: setting for key, setting in settings.items() if key in HOST_KEYS}


def _read_entry(reading: _Reading, entry: object, line: int, path: str, defaults: Variables) -> None:
    section = entry if isinstance(entry, Section) else Section([("name", entry)], line)
    settings = _located(reading, section, path)
    name = settings.pop("name", Located(None, reading.where(line, path))).value
    # Here and not per host, so that an entry whose name is wrong has its other faults reported with it.
    reading.faults += make_host("entry", _without(settings, PER_HOST), {})[1]
    if not isinstance(name, str):
        what = "no name" if name is None else f"the name {quoted(name)}"
        reading.fault(line, path, f"found {what}, expected a host name as text", "write `name: gpu01`")
        return
    user, pattern, port = split_login(name)
    from_login = {"user": user, "port": port}
    where = reading.where(line, path)
    implied = {key: Located(value, where) for key, value in from_login.items() if value is not None}
    try:
        names = expand(pattern)
    except ValueError as error:
        reading.fault(line, path, str(error))
        return
    shared = _without({**defaults, **implied, **settings}, PER_HOST)
    per_host = {key: _spread(reading, settings[key], names) for key in PER_HOST if key in settings}
    for index, host in enumerate(names):
        own = {key: values[index] for key, values in per_host.items()}
        _add_host(reading, host, shared | own, line, path)


def _without(settings: Variables, keys: Sequence[str]) -> Variables:
    return {key: setting for key, setting in settings.items() if key not in keys}


def _spread(reading: _Reading, setting: Located, names: Sequence[str]) -> Sequence[Located]:
    """Return the value for each host: the same range as the name's, or the one value of one host."""
    value = setting.value
    if not isinstance(value, str) or ("[" not in value and len(names) == 1):
        return [setting] * len(names)
    try:
        values = expand(value)
    except ValueError as error:
        reading.faults.append(Fault(setting.where, str(error)))
        return [Located(None, setting.where)] * len(names)
    if len(values) != len(names):
        problem = (
            f"found {quoted(value)}, which is {counted(len(values), 'value')}, expected {len(names)}, one for each host"
        )
        reading.faults.append(Fault(setting.where, problem, "write a range of the same length, such as 10.0.0.[1:4]"))
        return [Located(None, setting.where)] * len(names)
    return [Located(address, setting.where) for address in values]


def _add_host(reading: _Reading, name: str, keys: Variables, line: int, path: str) -> None:
    if name in reading.first_line:
        earlier = reading.first_line[name]
        reading.fault(
            line, path, f"found host {quoted(name)}, which is already on line {earlier}", "name each host once"
        )
        return
    reading.first_line[name] = line
    reading.tree.add_host(name, UNGROUPED)
    host, wrong = make_host(name, keys, plain_values(keys))
    reading.hosts.append(host)
    reading.faults += wrong


def _read_groups(reading: _Reading, document: Section) -> None:
    groups = document.get("groups")
    if groups is None:
        return
    if not isinstance(groups, Section):
        line = document.lines["groups"]
        reading.fault(line, "groups", f"found {_kind(groups)}, expected names with lists of hosts")
        return
    for group, members in groups.items():
        line, path = groups.lines[group], f"groups.{group}"
        patterns = [members] if isinstance(members, str) else members
        if not isinstance(group, str) or not isinstance(patterns, list) or group in (ALL, UNGROUPED):
            reading.fault(
                line, path, f"found {quoted(group)}: {_kind(members)}, expected a name of your own and a list of hosts"
            )
            continue
        reading.tree.add_group(group)
        for pattern in patterns:
            _add_members(reading, group, str(pattern), line, path)


def _add_members(reading: _Reading, group: str, pattern: str, line: int, path: str) -> None:
    try:
        names = expand(pattern)
    except ValueError as error:
        reading.fault(line, path, str(error))
        return
    for name in names:
        if name in reading.first_line:
            reading.tree.add_host(name, group)
        else:
            reading.fault(
                line, path, f"found {quoted(name)}, which `hosts` does not name", nearest(name, reading.first_line)
            )


def _located(reading: _Reading, section: Section, path: str) -> Variables:
    lines = section.lines
    return {
        str(key): Located(value, reading.where(lines.get(key, section.line), f"{path}.{key}" if lines else path))
        for key, value in section.items()
    }


def _kind(value: object) -> str:
    kinds = {type(None): "nothing", Section: "a mapping", Items: "a list"}
    return kinds.get(type(value), shown(value))
