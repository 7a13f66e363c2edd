"""Ansible's INI form: `[group]`, `[group:vars]`, `[group:children]`, and variables on the lines of hosts."""

from __future__ import annotations

import ast
import re
import shlex
import warnings

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.ansible import PRIORITY, build
from flagscale_deploy.inventory.assembly import refuse_other_text
from flagscale_deploy.inventory.document import Section, Unsafe
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.inventory.ranges import expand, split_port
from flagscale_deploy.inventory.surroundings import Surroundings
from flagscale_deploy.inventory.tree import UNGROUPED, Faults, Located, Tree
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.units import KIB, format_size

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_NAME = re.compile(r"([^:\]\s]+)\s*(?:#.*)?", re.DOTALL)
_KINDS = ("hosts", "vars", "children")
LONGEST_LINE = 64 * KIB
LARGEST_BITS = 1024
SSH_PORT, MOST_PROCESSES = 22, 200


def parse_ansible_ini(text: str, source: str, around: Surroundings) -> Inventory:
    """Return the inventory. Raises InputError with every wrong line and every fault of the variable files beside it."""
    reader = _Reader(source)
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if len(stripped) > LONGEST_LINE:
            raise InputError.at(f"{source}:{number}", f"is longer than {format_size(LONGEST_LINE)}", "write a range")
        if stripped and stripped[0] not in "#;":
            reader.read_line(stripped, number)
            if not reader.sections:
                refuse_other_text(reader.faults, len(reader.tree.hosts), source)
    reader.report_undefined()
    reader.refuse_machine_file()
    return build(reader.tree, around, reader.faults, source)


def process_count_problem(login: str, port: int) -> str:
    """Return why `gpu01:8` is refused, "" where its number is a port: MPICH's machine files count processes so."""
    if port >= MOST_PROCESSES or port == SSH_PORT:
        return ""
    return f"found {quoted(login)}, which is SSH's port {port} here, and {port} processes in MPI"


def literal(text: str) -> object:
    """Return a value as Ansible takes it from an INI file: a Python literal if it is one, else text.

    So `8` is a number, `[1, 2]` a list, and `True` a boolean, while `true` and `yes` are text.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return _data(ast.literal_eval(text))
    except (ArithmeticError, TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return text


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.faults = Faults()
        self.tree = Tree(source)
        self.group, self.kind = UNGROUPED, "hosts"
        self.sections = False
        self.children_waiting: dict[str, list[tuple[str, int]]] = {}
        """Children named before their section: their parents, and the lines of the names."""
        self.bare = True
        """Whether there were only names of hosts so far, with or without a port."""
        self.ports: list[tuple[int, str, int]] = []
        """Lines with a port, the name before it, and the port."""
        self.only_vars: dict[str, int] = {}
        """Groups that so far have a `:vars` section alone, and its line."""

    def read_line(self, line: str, number: int) -> None:
        """Read one line that is no comment."""
        section = _SECTION.fullmatch(line)
        if section is not None:
            self._open(section[1], section[2] or "hosts", number)
        elif line.startswith("[") and line.endswith("]"):
            self._fault(number, f"found the section {quoted(line)}, expected [group], [group:vars] or [group:children]")
        elif self.kind == "vars":
            self._read_variable(line, number)
        elif self.kind == "children":
            self._read_child(line, number)
        elif self.kind == "hosts":
            self._read_hosts(line, number)

    def report_undefined(self) -> None:
        """Add a fault for each group that is named, and that no section defines."""
        for child, parents in self.children_waiting.items():
            for parent, number in parents:
                remedy = f"add [{child}], or put the host into [{parent}]"
                self._fault(
                    number,
                    f"found the child {quoted(child)} of group {quoted(parent)}, which no section defines",
                    remedy,
                )
        for group, number in self.only_vars.items():
            self._fault(
                number, f"found variables for group {quoted(group)}, which no section defines", f"add [{group}]"
            )

    def refuse_machine_file(self) -> None:
        """Add a fault for `gpu01:8` in a file of bare names: MPICH's machine files count processes so."""
        for number, name, port in self.ports if self.bare else ():
            if problem := process_count_problem(f"{name}:{port}", port):
                remedy = f"write {name} slots={port}; if it is the port: {name} ansible_port={port}"
                self._fault(number, problem, remedy)

    def _open(self, group: str, kind: str, number: int) -> None:
        self.group, self.kind, self.sections = group, kind, True
        self.bare = False
        if kind not in _KINDS:
            expected = "expected [group], [group:vars] or [group:children]"
            self._fault(number, f"found the section [{group}:{kind}], {expected}")
            return
        if group not in self.tree.groups and kind == "vars" and group not in self.children_waiting:
            self.only_vars[group] = number
        self.tree.add_group(group)
        if kind != "vars":
            self.only_vars.pop(group, None)
            for parent, named_on in self.children_waiting.pop(group, ()):
                self._add_child(parent, group, named_on)

    def _read_child(self, line: str, number: int) -> None:
        name = _NAME.fullmatch(line)
        if name is None:
            self._fault(number, f"found {quoted(line)}, expected the name of a group")
        elif name[1] in self.tree.groups:
            self._add_child(self.group, name[1], number)
        else:
            self.children_waiting.setdefault(name[1], []).append((self.group, number))

    def _add_child(self, parent: str, child: str, number: int) -> None:
        try:
            self.tree.add_child(parent, child)
        except ValueError as error:
            self._fault(number, str(error))

    def _read_variable(self, line: str, number: int) -> None:
        name, equals, text = (part.strip() for part in line.partition("="))
        if not equals:
            self._fault(number, f"found {quoted(line)}, expected name=value")
            return
        value = literal(text)
        if name != PRIORITY:
            where = f"{self.source}:{number}: [{self.group}:vars] {name}"
            self.tree.groups[self.group].variables[name] = Located(value, where)
        elif isinstance(value, int):
            self.tree.groups[self.group].priority = value
        else:
            self._fault(number, f"found {PRIORITY}={quoted(text)}, expected a whole number")

    def _read_hosts(self, line: str, number: int) -> None:
        try:
            pattern, *assignments = shlex.split(line, comments=True)
            bare, port = split_port(pattern)
            names = expand(bare)
        except ValueError as error:
            self._fault(number, f"in {quoted(line)}: {error}")
            return
        self.bare = self.bare and not assignments
        if port is not None:
            self.ports.append((number, bare, port))
        variables = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                remedy = f"write {pattern} slots={assignment}" if assignment.isdecimal() else ""
                problem = f"found {quoted(assignment)} after host {quoted(pattern)}, expected name=value"
                self._fault(number, problem, remedy)
            variables[name] = Located(literal(text), f"{self.source}:{number}: {name}")
        for host in names:
            own_port = None if port is None else Located(port, f"{self.source}:{number}")
            self.tree.add_host(host, self.group, own_port).update(variables)

    def _fault(self, number: int, problem: str, remedy: str = "") -> None:
        self.faults.append(Fault(f"{self.source}:{number}", problem, remedy))


def _data(value: object) -> object:
    """Return a literal in the types that JSON has; bytes are text that is no template, as in Ansible."""
    if isinstance(value, dict):
        return Section((key, _data(item)) for key, item in value.items())
    if isinstance(value, (list, tuple, set)):
        return [_data(item) for item in value]
    if isinstance(value, bytes):
        return Unsafe(value.decode())
    if value is ...:
        return "..."
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        raise ValueError("not for any setting, and more digits than Python prints")
    return str(value) if isinstance(value, complex) else value
