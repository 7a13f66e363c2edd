"""Where faults are injected: four hosts, an inventory and a configuration, which are all as they were afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from flagscale_deploy.checks.types import State
from tests.lab import Host, Lab
from tests.lab.product.operator import Operator, Result

EVERYWHERE = ""
MODEL = "/run/models/tiny"
"""On every host a copy of its own."""

PORT = 7900
NAME = "checked"
CONFIGURATION: Mapping[str, Any] = {
    "experiment": {"exp_name": NAME},
    "model_args": {"tiny": {"model-tag": MODEL, "tensor-parallel-size": 4, "port": PORT, "max-model-len": 512}},
    "deploy": {"timeouts": {"connect": 4, "ready": 20, "stop": 2}},
}
"""One instance over all four hosts, by Ray; `node1` is the head, and the driver."""


@dataclass
class Stage:
    """The lab with something broken, for the length of a `with` block; `host` is where."""

    lab: Lab
    directory: Path
    environments: Mapping[str, Path]
    """Virtual environments on every host: `good`, and others by what is odd about them."""
    host: Host
    configuration: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(dict(CONFIGURATION)))
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By host, or `all`: variables of the inventory."""
    undo: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: Any) -> None:
        self.undo.close()

    def at(self, name: str) -> Stage:
        """Return the same stage with another host to break."""
        return replace(self, host=next(host for host in self.lab.hosts if host.name == name))

    def on(self, do: str, undo: str = "", host: Host | None = None) -> str:
        """Do something at a host's console, by default the broken one's, and undo it later; what it printed."""
        at = host or self.host
        if undo:
            self.undo.callback(at.run, undo)
        return at.run(do).stdout.strip()

    def start(self, command: str, host: Host | None = None) -> int:
        """Start a program that goes on until the block's end; its pid on the host."""
        pid = self.on(f"setsid bash -c {_quoted(command)} >/dev/null 2>&1 </dev/null & echo $!", host=host)
        self.undo.callback((host or self.host).run, f"kill -9 -{pid}", check=False)
        return int(pid)

    def write(self, path: Path, text: str) -> None:
        """Other words in a file of a host, as the machine sees it; the file stays the same one."""
        self.undo.callback(path.write_text, path.read_text())
        path.write_text(text)

    def inventory(self, host: str = "", **variables: Any) -> None:
        """Set variables of a host, by default the broken one's."""
        self.variables.setdefault(host or self.host.name, {}).update(variables)

    def flags(self, **flags: Any) -> None:
        """Give the model these flags."""
        self.configuration["model_args"]["tiny"].update({key.replace("_", "-"): flags[key] for key in flags})

    def deploy(self, **keys: Any) -> None:
        """Set keys of the section `deploy`."""
        self.configuration["deploy"].update(keys)

    @property
    def operator(self) -> Operator:
        """Who types commands; `config` is to be written before."""
        path = self.directory / "hosts.yaml"
        everyone = {"venv": str(self.environments["good"]), **self.variables.get("all", {})}
        content = yaml.safe_load(self.lab.inventory(path, **everyone).read_text())
        for name, variables in self.variables.items():
            if name != "all":
                content["all"]["hosts"][name].update(variables)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return Operator(self.directory, path)

    @property
    def config(self) -> Path:
        path = self.directory / "checked.yaml"
        path.write_text(yaml.safe_dump(self.configuration, sort_keys=False))
        return path

    def check(self, *words: str) -> Result:
        return self.operator("check", "-c", self.config, "--json", *words, exits=None)


@dataclass(frozen=True)
class Fault:
    """Something that breaks, the check that has to notice it, and what its remedy has to say.

    `at` is the broken host; `host` is the one that the check names: None for the broken one, and `EVERYWHERE` ("") for
    a fault of the whole configuration. `remedy` may name the broken host as `{host}`. `words` are for the command line.
    Faults of one `round` are injected together, since none hides another; without a round a fault is alone.
    """

    check: str
    inject: Callable[[Stage], None]
    remedy: str
    state: State = "failed"
    host: str | None = None
    words: tuple[str, ...] = ()
    exits: int = 4
    round: str = ""
    at: str = "node3"

    @property
    def name(self) -> str:
        return f"{self.check}: {self.inject.__name__.replace('_', ' ')}"

    @property
    def named(self) -> str:
        """The host that the check names."""
        return self.at if self.host is None else self.host

    @property
    def cure(self) -> str:
        """What the remedy has to say where the fault is."""
        return self.remedy.replace("{host}", self.at)


FAULTS: list[Fault] = []


def rounds() -> dict[str, list[Fault]]:
    """Return the faults that are injected together, by the name of their round."""
    together: dict[str, list[Fault]] = {}
    for fault in FAULTS:
        together.setdefault(fault.round or fault.name, []).append(fault)
    return together


def caught_by(check: str, remedy: str, **more: Any) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Enter what injects a fault in the table."""

    def enter(inject: Callable[[Stage], None]) -> Callable[[Stage], None]:
        exits = 0 if more.get("state") == "warning" else 4
        FAULTS.append(Fault(check, inject, remedy, **{"exits": exits, **more}))
        return inject

    return enter


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
