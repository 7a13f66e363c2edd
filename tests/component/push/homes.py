"""Hosts that are directories of this machine: programs run and talk over loopback, each with a HOME of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flagscale_deploy.api import push
from flagscale_deploy.api.request import Options, Request
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.push.report import PushReport
from flagscale_deploy.support.shell import quote
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.local import LocalConnection, LocalRunning
from tests.component.remote.living import HOST_PYTHON


class HomeConnection(LocalConnection):
    """A host whose home is a directory here."""

    def __init__(self, host: Host, home: Path) -> None:
        super().__init__(host)
        self._home = home

    def start(self, command: str) -> LocalRunning:
        return LocalRunning(self.host.name, f"HOME={quote(self._home)} exec {command}")


@dataclass
class Homes:
    """`homes.push(SRC, "~/models/m")` pushes to all of them; what a host has lies in `homes / name`."""

    path: Path
    names: tuple[str, ...] = ("gpu01", "gpu02", "gpu03")
    inventory: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in self.names:
            (self.path / name).mkdir()
        self.inventory = self.path / "hosts.yaml"
        listed = "".join(f"  - {{name: {name}, connection: local}}\n" for name in self.names)
        self.inventory.write_text(f"hosts:\n{listed}")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def connect(self, host: Host, timeout: float) -> Connection:  # noqa: ARG002 (as others take it)
        return HomeConnection(host, self.path / host.name)

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
