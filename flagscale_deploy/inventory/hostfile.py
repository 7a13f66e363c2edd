"""FlagScale's hostfile: a line `HOST slots=N [type=T]` for each host, the head first; Open MPI's is read alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.assembly import assemble, refuse_other_text
from flagscale_deploy.inventory.keys import make_host
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.ranges import expand, split_login
from flagscale_deploy.inventory.tree import UNGROUPED, Faults, Located, Tree, plain_values
from flagscale_deploy.support.quote import quoted

_LINE = re.compile(
    r"(?P<host>\S+)(?:\s+max[_-]slots=\S+)?\s+slots=(?P<slots>\S*)(?:\s+max[_-]slots=\S+)?(?:\s+type=(?P<type>\S+))?"
)
_MPICH = re.compile(r"(\S+):(\d{1,5})")
_WORDS = {"gpus": "slots"}
_EXPECTED = "expected HOST slots=N [type=gpu|cpu|RESOURCE]"


def looks_like_hostfile(text: str) -> bool:
    """Return whether a text has no INI section, and a line with `slots=` behind a first word that is no YAML key."""
    lines = text.splitlines()
    sections = any(re.match(r"\s*\[[^\]]+\]\s*(#|$)", line) for line in lines)
    return not sections and any(re.match(r"\s*[^\s#-]\S*(?<!:)\s[^#]*(?<=\s)slots\s*=", line) for line in lines)


def parse_hostfile(text: str, source: str) -> Inventory:
    """Return the hosts in the order of the lines. Slots become `gpus`, those of type `cpu` become `cpus`.

    Raises InputError with every wrong line.
    """
    reading = _Reading()
    for number, line in enumerate(map(_without_comment, text.splitlines()), start=1):
        if line:
            _read_line(reading, line, number, f"{source}:{number}")
            refuse_other_text(reading.faults, len(reading.hosts), source)
    reading.tree.settle()
    return assemble(reading.tree, reading.hosts, reading.faults, source, {})


@dataclass
class _Reading:
    tree: Tree = field(default_factory=Tree)
    hosts: list[Host | None] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    first_line: dict[str, int] = field(default_factory=dict)


def _read_line(reading: _Reading, line: str, number: int, where: str) -> None:
    match = _LINE.fullmatch(re.sub(r"(?<!\s)\s*=\s*(?![\w-]+\s*=)", "=", line))
    if (mpich := _MPICH.fullmatch(line)) is not None:
        remedy = f"HOST:N is MPICH's; write {mpich[1]} slots={mpich[2]}"
        reading.faults.append(Fault(where, f"found {quoted(line)}, {_EXPECTED}", remedy))
        return
    if match is None:
        reading.faults.append(Fault(where, f"found {quoted(line)}, {_EXPECTED}", "as in 10.0.0.1 slots=8 type=gpu"))
        return
    user, pattern, port = split_login(match["host"])
    try:
        names = expand(pattern)
    except ValueError as error:
        reading.faults.append(Fault(where, str(error), "as in 10.0.0.1 slots=8, or gpu[01:04] slots=8"))
        return
    slots = int(match["slots"]) if re.fullmatch(r"[0-9]{1,9}", match["slots"]) else match["slots"] or "nothing"
    settings = {"user": user, "port": port, "gpus": slots, "type": match["type"]}
    keys = {
        key: Located(value, f"{where}: {_WORDS.get(key, key)}") for key, value in settings.items() if value is not None
    }
    for name in names:
        if name in reading.first_line:
            earlier = reading.first_line[name]
            problem = f"found host {quoted(name)}, which is already on line {earlier}"
            reading.faults.append(Fault(where, problem, f"change line {earlier} or line {number}"))
            continue
        reading.first_line[name] = number
        reading.tree.add_host(name, UNGROUPED)
        host, wrong = make_host(name, keys, plain_values(keys))
        reading.hosts.append(host and with_slots(host))
        reading.faults += wrong


def with_slots(host: Host) -> Host:
    """Return a host whose `gpus` are slots: those of type `cpu` are CPUs, as FlagScale gives them to `ray start`."""
    return replace(host, gpus=0, cpus=host.gpus) if host.type == "cpu" and host.gpus else host


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()
