"""Hosts that are directories of this machine: programs run and talk over loopback, each with a HOME of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flagscale_deploy.api import push
from flagscale_deploy.api.request import Options, Request
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.push.report import PushReport
from flagscale_deploy.support.shell import join, quote
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.local import LocalConnection, LocalRunning
from tests.component.remote.living import HOST_PYTHON


class HomeConnection(LocalConnection):
    """A host whose home is a directory here."""

    def __init__(self, host: Host, home: Path, before: str = "") -> None:
        super().__init__(host)
        self._home, self._before = home, before

    def start(self, command: str) -> LocalRunning:
        return LocalRunning(self.host.name, f"{self._before} HOME={quote(self._home)} exec {command}")


class HostileConnection(HomeConnection):
    """A host that runs what it likes in the place of our program: the same, with a trick played before it starts."""

    def __init__(self, host: Host, home: Path, trick: str) -> None:
        super().__init__(host, home)
        self._trick = trick

    def start(self, command: str) -> LocalRunning:  # noqa: ARG002 (our program is not run)
        return super().start(join([sys.executable, "-c", f"TRICK = {self._trick!r}\n{HOSTILE}", str(ROOT)]))


HOSTILE = """
import importlib, json, re, sys
sys.path.insert(0, sys.argv[1])
s = sys.stdin.buffer
loader = s.read(int(s.readline()))
packed, told = [s.read(int(count)) for count in re.search(rb"s.read\\((\\d+)\\), s.read\\((\\d+)\\)", loader).groups()]
name, args, _ = json.loads(told)
from flagscale_deploy.remote import wire
exec(TRICK)
importlib.import_module("flagscale_deploy.remote.programs." + name).main(args)
"""
"""What such a host does with the bundle that it is sent. A trick may use `name`, `args` and `wire`."""
ROOT = Path(__file__).parents[3]


@dataclass
class Homes:
    """`homes.push(SRC, "~/models/m")` pushes to all of them; what a host has lies in `homes / name`."""

    path: Path
    names: tuple[str, ...] = ("gpu01", "gpu02", "gpu03")
    inventory: Path = field(init=False)
    tricks: dict[str, str] = field(default_factory=dict)
    """What a hostile host does before it starts our program, in Python."""
    before: str = ""
    """What the other hosts do before, in the shell."""

    def __post_init__(self) -> None:
        for name in self.names:
            (self.path / name).mkdir()
        self.inventory = self.path / "hosts.yaml"
        listed = "".join(f"  - {{name: {name}, connection: local}}\n" for name in self.names)
        self.inventory.write_text(f"hosts:\n{listed}")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def connect(self, host: Host, timeout: float) -> Connection:  # noqa: ARG002 (as others take it)
        if host.name in self.tricks:
            return HostileConnection(host, self.path / host.name, self.tricks[host.name])
        return HomeConnection(host, self.path / host.name, self.before)

    def request(self, *names: str) -> Request:
        hosts = tuple(Host(name, name, connection="local", python=HOST_PYTHON) for name in names or self.names)
        options = Options(inventory=str(self.inventory), connect=self.connect)
        return Request(Inventory(hosts), None, None, options)

    def push(self, source: Path | str, dest: str = "~/models/m", *names: str, **choices: Any) -> PushReport:
        return push(self.request(*names), str(source), dest, **choices)


def content(path: Path) -> dict[str, Any]:
    """Everything below a directory: links by target, files by content and mode."""
    return {
        str(file_path.relative_to(path)): str(file_path.readlink())
        if file_path.is_symlink()
        else oct(file_path.stat().st_mode & 0o7777)
        if file_path.is_dir()
        else (file_path.read_bytes(), oct(file_path.stat().st_mode & 0o7777))
        for file_path in sorted(path.rglob("*"))
    }
