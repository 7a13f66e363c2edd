"""Ansible's YAML form: groups with `hosts`, `children` and `vars`, nested to any depth."""

from __future__ import annotations

from collections.abc import Sequence

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.ansible import PRIORITY, build
from flagscale_deploy.inventory.document import Section
from flagscale_deploy.inventory.keys import nearest, shown
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.inventory.ranges import expand, split_port
from flagscale_deploy.inventory.surroundings import Surroundings
from flagscale_deploy.inventory.tree import Faults, Located, Tree
from flagscale_deploy.support.quote import quoted

_SECTIONS = ("vars", "children", "hosts")


def parse_ansible_yaml(document: Section, source: str, around: Surroundings, faults: Sequence[Fault] = ()) -> Inventory:
    """Return the inventory of a document of this form; `faults` are those that its YAML already has.

    Raises InputError with every fault of the file and of the variable files beside it.
    """
    reader = _Reader(source, faults)
    for name, body in document.items():
        reader.read_group(name, body, document.lines[name], str(name))
    return build(reader.tree, around, reader.faults, source)


class _Reader:
    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = Faults(faults)
        self.tree = Tree(source)

    def read_group(self, name: object, body: object, line: int, path: str) -> None:
        """Read a group, and those inside it."""
        if not isinstance(name, str) or not name:
            self._fault(line, path, f"found the group name {quoted(name)}, expected text", "put it in quotes")
            return
        if body is not None and not isinstance(body, Section):
            expected = "expected a group: a mapping with hosts, children or vars"
            self._fault(line, path, f"found {shown(body)}, {expected}", _form_hint(name))
            return
        self.tree.add_group(name)
        for key, value in body.items() if body else ():
            at = body.lines[key] if body else line
            if key in _SECTIONS:
                self._read_section(name, key, value, at, f"{path}.{key}")
            else:
                hint = nearest(
                    str(key), _SECTIONS, "a group has hosts, children and vars; other keys belong under vars"
                )
                self._fault(at, f"{path}.{key}", f"found the unknown key {quoted(key)} in group {quoted(name)}", hint)

    def _read_section(self, group: str, kind: str, value: object, line: int, path: str) -> None:
        section = _named(value, line)
        if section is None:
            self._fault(line, path, f"found {shown(value)}, expected a mapping", "end each name with a colon: `gpu01:`")
            return
        for key, item in section.items():
            at = section.lines.get(key, line)
            if kind == "vars":
                self._set_group_variable(group, str(key), Located(item, self._where(at, f"{path}.{key}")))
            elif kind == "hosts":
                self._read_host(group, key, item, at, f"{path}.{key}")
            else:
                self._read_child(group, key, item, at, f"{path}.{key}")

    def _read_child(self, group: str, name: object, body: object, line: int, path: str) -> None:
        self.read_group(name, body, line, path)
        if name not in self.tree.groups:
            return
        try:
            self.tree.add_child(group, name)
        except ValueError as error:
            self._fault(line, path, str(error))

    def _set_group_variable(self, group: str, name: str, value: Located) -> None:
        node = self.tree.groups[group]
        if name != PRIORITY:
            node.variables[name] = value
            return
        try:
            node.priority = int(str(value.value))
        except (TypeError, ValueError):
            self.faults.append(Fault(value.where, f"found {quoted(value.value)}, expected a whole number"))

    def _read_host(self, group: str, pattern: object, body: object, line: int, path: str) -> None:
        if not isinstance(pattern, str):
            self._fault(line, path, f"found the host name {quoted(pattern)}, expected text", "put it in quotes")
            return
        section = _named(body, line) if not isinstance(body, str) else None
        if section is None:
            self._fault(
                line, path, f"found {shown(body)}, expected the variables of the host", "write `ansible_host: ADDRESS`"
            )
            return
        bare, port = split_port(pattern)
        try:
            names = expand(bare)
        except ValueError as error:
            self._fault(line, path, str(error))
            return
        variables = {
            str(key): Located(item, self._where(section.lines.get(key, line), f"{path}.{key}"))
            for key, item in section.items()
        }
        for name in names:
            own_port = None if port is None else Located(port, self._where(line, path))
            self.tree.add_host(name, group, own_port).update(variables)

    def _where(self, line: int, path: str) -> str:
        return f"{self.source}:{line}: {path}"

    def _fault(self, line: int, path: str, problem: str, remedy: str = "") -> None:
        self.faults.append(Fault(self._where(line, path), problem, remedy))


def _named(value: object, line: int) -> Section | None:
    """Return a section as a mapping: an empty one has no keys, and one word stands for a key without a value."""
    if value is None:
        return Section(line=line)
    if isinstance(value, str):
        return Section([(value, None)], line)
    return value if isinstance(value, Section) else None


def _form_hint(name: str) -> str:
    return "the short form is `hosts: [gpu01, gpu02]`" if name in ("host", "nodes", "machines", "servers") else ""
