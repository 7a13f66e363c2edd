"""A deployment over two hosts, and what its programs answer where all goes well."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from flagscale_deploy.deploy.launch import Started
from flagscale_deploy.errors import HostError
from flagscale_deploy.events import Event
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.messages.record import Record
from tests.fakes import Handler, Output
from tests.unit.plan.given import inventory, model, planned, spec

HOSTS = ("gpu01", "gpu02")
SPEC = spec(model(tp=16, port=4567))
PLAN = planned(inventory(*HOSTS), SPEC)
RECORDS: dict[str, Record] = {name: {"deployment": "qwen"} for name in HOSTS}


class Heard:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def of(self, stage: str, *states: str) -> list[Event]:
        return [event for event in self.events if event.stage == stage and (not states or event.state in states)]

    def texts(self, stage: str, *states: str) -> list[str]:
        return [event.text for event in self.of(stage, *states)]


def launched(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
    """Reply as `launch`: the script runs, and ends well unless it is one that stays."""
    yield {"log": f"/state/logs/{args['script']}.log", "pid": 100, "start_ticks": 7}
    yield {"exit_code": None if args["detached"] else 0, "tail": []}


def unseen(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    """Reply as `watch_ranks` where it sees nothing."""
    return ()


def archived(files: Mapping[str, bytes]) -> Iterable[Output]:
    """Reply as `archive` with these logs, of which nothing was collected yet."""
    yield {"archive": 2}
    for name, content in files.items():
        yield {"file": name, "size": len(content), "at": 0, "mtime": 1.0e9}
        yield {"data": len(content)}
        yield content
        yield {"end": True, "why": ""}
    yield {"done": True, "older": 0}


def held(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    """Reply as `lock` where nobody else has it: it stays until it is released."""
    yield {"locked": True}
    while True:
        yield None


def reserved(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    """Reply as `reserve` where nothing was taken."""
    yield {"taken": []}


def answering(**modules: Any) -> Handler:
    """Return a handler from functions (host, args) by module; `launch`, `reserve` and `watch_ranks` are included."""

    def handler(host: Host, module: str, args: dict[str, Any]) -> Iterable[Output]:
        return {"launch": launched, "reserve": reserved, "watch_ranks": unseen, **modules}[module](host, args)  # type: ignore[no-any-return]

    return handler


def started(plan: Plan = PLAN) -> list[Started]:
    """Every engine of a plan, started."""
    return [
        Started(step, 100, 7, f"/state/logs/{step.script}.log")
        for stage in plan.stages
        for step in stage.steps
        if step.detached
    ]


def problems(errors: dict[str, HostError]) -> dict[str, str]:
    return {name: error.problem for name, error in errors.items()}
