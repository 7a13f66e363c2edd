"""No reply of a host ends a command: it becomes that host's error, and the others' results are there.

`FSD_FAULTS=all` tries 33,000 mutations, as `make faults` does; else there are fewer of them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.errors import DeployError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.output.check import check_json, show_check
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.history import show_history
from flagscale_deploy.output.plan import show_plan
from flagscale_deploy.output.ps import show_ps
from flagscale_deploy.output.run import run_json, show_run, show_run_failure
from flagscale_deploy.output.status import show_status
from flagscale_deploy.output.stop import show_stop, stop_json
from flagscale_deploy.output.unlock import show_unlock, unlock_json
from flagscale_deploy.plan.kept import run_text
from tests.fakes import Output
from tests.unit.api.changing_world import LONGER, OPTIONS, QUICK, ChangingWorld
from tests.unit.api.mutations import mutated
from tests.unit.api.world import World
from tests.unit.plan.test_kept import described

ALL = os.environ.get("FSD_FAULTS") == "all"
SECONDS = 30.0
"""No command over hosts that are functions takes longer."""


class Busy(World):
    """The same with replies that hold all that they may: every key of every program is sent by some test."""

    def probe(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in super().probe(host, args):
            assert isinstance(reply, dict)
            models = [
                {
                    "path": "/models/qwen", "problem": "", "config": {"model_type": "qwen2"},
                    "hashes": {"config.json": "ab", "tokenizer.json": "cd"},
                    "weights": {"model.safetensors": 1 << 30}, "indexed": ["model.safetensors"], "total": 1 << 30,
                    "torn": {}, "pointers": [], "chat_template": True,
                }
            ]  # fmt: skip
            ports = [{"port": 9000, "address": "0.0.0.0", "pid": 7, "command": "nginx", "run": ""}]
            ray = [{"pid": 9, "user": "bob", "command": "raylet"}]
            runs = {"other/run": 2, "qwen/r1": 3}
            change = {
                "run_id": "u1", "operator": "me@here", "base": "r1", "groups": ["qwen/0"], "step": "stop", "done": [],
                "secrets": False, "at": 1.0,
            }  # fmt: skip
            record = {"deployment": "qwen", "run_id": "r1", "boot_id": reply["boot_id"], "instances": [], "gpus": []}
            record |= {"configuration": "r1", "change": change}
            kept = {"kept": run_text({**described(), "run_id": "r1"}), "deployments": [record, *reply["deployments"]]}
            yield {**reply, "models": models, "ports": ports, "foreign_ray": ray, "runs": runs, **kept}

    def inspect(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in super().inspect(host, args):
            assert isinstance(reply, dict)
            restarts = {
                "state": "running", "restarts": 1, "in_a_row": 1, "max": 3, "last_restart": 5.0,
                "last_exit": "it ended", "healthy": True, "why": "", "pid": 8, "start_ticks": 9, "boot_id": "b",
                "supervised": True, "alive": True,
            }  # fmt: skip
            metrics = {"kv_cache": 0.5, "waiting": 1.0, "running": 2.0}
            process = {
                "role": "engine", "pid": 5, "start_ticks": 1, "boot_id": "b", "log": "/l", "script": "s.sh",
                "alive": self.running, "stopped": False, "ready_at": 3.0,
            }  # fmt: skip
            server = {**reply["instances"]["qwen/0"], "metrics": metrics, "restarts": restarts, "ready_at": 3.0}
            ray = {"nodes": {"10.0.0.1": 8.0, "10.0.0.2": 8.0}, "missing": [], "available": {"GPU": 0.0}}
            yield {**reply, "processes": [process], "instances": {"qwen/0": server}, "ray": ray, "ray_node": restarts}

    def history(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        text = run_text({**described(), "run_id": "r1"})
        if args.get("run_id"):
            yield {"events": [], "run": text}
            return
        event = {"schema": 1, "deployment": "qwen", "host": host.name, "server": "", "reason": "x", "time": 9.0}
        run = {**event, "event": "run", "run_id": "r1", "by": "me", "argv": {"qwen/0": ["vllm", "--port", "1"]}}
        kept = {"r1": hashlib.sha256(text.encode()).hexdigest()}
        restored = {**event, "event": "restored", "attempt": 1, "max": 5, "evidence": "/e"}
        updates = [
            {**event, "event": kind, "run_id": "u1", "by": "me", "took": 3.5, "reason": "qwen/0: --port 1 → 2\nmore"}
            for kind in ("updated", "put back", "update failed")
        ]
        yield {"events": [run, restored, *updates], "kept": kept}

    def ps(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in super().ps(host, args):
            assert isinstance(reply, dict)
            event = {
                "schema": 1, "deployment": "qwen", "server": "qwen/0", "host": host.name, "event": "restored",
                "reason": "it ended", "attempt": 1, "max": 5, "evidence": "", "time": 9.0,
            }  # fmt: skip
            other = {
                "user": "bob",
                "deployment": "llama",
                "processes": 3,
                "since": 1.0,
                "models": ["l"],
                "endpoint": "",
            }
            process = {"pid": 8, "memory_mib": 9, "user": "bob", "command": "python", "run": "", "since": 2.0}
            gpus = [{**gpu, "processes": [process]} for gpu in reply["gpus"]]
            own = [{**one, "last_event": event} for one in reply["deployments"]]
            yield {**reply, "deployments": own, "others": [other], "gpus": gpus}

    def stop(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"event": "found", "count": 3}
        yield {"event": "stage", "stage": "engines", "signalled": 3}
        yield {"event": "killed", "count": 1}
        yield {"event": "waiting", "ended": 1, "seconds": 0.1, "segments": 1}
        survivor = {"pid": 7, "command": "vllm", "state": "D", "why": "it does not end"}
        for reply in super().stop(host, args):
            assert isinstance(reply, dict)
            ports = [{"port": 4567, "pid": 7, "command": "vllm"}]
            yield {**reply, "survivors": [survivor], "ports_left": ports, "after_stop": {"exit_code": 1, "log": "/l"}}


def busy(folder: Path) -> Busy:
    world = Busy(folder)
    world.answers = {
        "qwen/0": {"answer": {"choices": [{"message": {"role": "assistant", "content": "Hi"}}], "usage": {}}}
    }
    world.watched = [
        {"lines": ["Loading weights:  50% Completed | 1/2", "Waiting for creating a placement group 'GPU': 16.0"]},
        {"healthy": True},
        {"ready": True, "token": "x", "at": ""},
    ]
    holder = {"who": "bob@ops", "what": "run", "since": "then", "from": "10.0.0.9", "pid": 7}
    world.unlock = lambda _host, _args: [
        {"state": "free", "holder": holder, "pid": None, "silent": 3.0, "filesystem": "ext4"}
    ]
    return world


def show(render: Callable[[Console], None], content: dict[str, Any] | None = None) -> None:
    """Print a result as people and as programs see it; the latter has to be JSON."""
    console = Console(color=False)
    render(console)
    if content is not None:
        json.loads(json.dumps(content, default=str, allow_nan=False))


def checked(request: Request) -> None:
    report = api.check(request)
    show(lambda console: show_check(console, report), check_json(report))


def planned(request: Request) -> None:
    planned = api.plan_change(request)
    show(lambda console: show_plan(console, planned.plan, show_scripts=True, difference=planned.difference))


def looked(request: Request) -> None:
    current = api.status(request)
    show(lambda console: show_status(console, current), current.json())


def listed(request: Request) -> None:
    overview = api.deployments(request, gpus=True)
    show(lambda console: show_ps(console, overview, every=True), overview.json())


def remembered(request: Request) -> None:
    history = api.history(request, "r1")
    show(lambda console: show_history(console, history, whole=True), history.json())


def ran(request: Request) -> None:
    try:
        result = api.run(request)
    except RunFailedError as error:
        failure = error
        show(lambda console: show_run_failure(console, failure))
        raise
    show(lambda console: show_run(console, result), run_json(result))


def stopped(request: Request) -> None:
    report = api.stop(request)
    show(lambda console: show_stop(console, report), stop_json(report))


def cleaned(request: Request) -> None:
    report = api.cleanup(request)
    show(lambda console: show_stop(console, report), stop_json(report))


def unlocked(request: Request) -> None:
    done = api.unlock(request)
    show(lambda console: show_unlock(console, done), unlock_json(done))


def called(request: Request) -> None:
    answer = api.call(request, [{"role": "user", "content": "Hi"}])
    show(lambda console: console.print(answer["choices"][0]["message"].get("content") or ""), dict(answer))


def followed(request: Request) -> None:
    api.follow(request, lambda *_: None)


ACTS: dict[str, tuple[Callable[[Request], None], bool, tuple[str, ...]]] = {
    "check": (checked, False, ("probe", "network_test", "parse_flags")),
    "plan": (planned, False, ("probe",)),
    "status": (looked, True, ("inspect",)),
    "ps": (listed, True, ("ps",)),
    "history": (remembered, True, ("history",)),
    "call": (called, True, ("inspect", "chat")),
    "stop": (stopped, True, ("lock", "stop")),
    "cleanup": (cleaned, True, ("lock", "stop", "cleanup")),
    "unlock": (unlocked, True, ("unlock",)),
    "logs": (followed, True, ("follow",)),
    "run": (ran, False, ("probe", "lock", "inspect", "reserve", "launch", "watch", "watch_ranks", "network_test")),
}
"""Commands: what they do, whether the deployment runs then, and the programs whose replies are changed."""
CASES = [(act, program) for act, (_, _, programs) in ACTS.items() for program in programs]


CHANGES: dict[str, tuple[Callable[[ChangingWorld], object], tuple[str, ...]]] = {
    "update": (
        lambda world: api.update(world.wanted(LONGER), OPTIONS, QUICK),
        ("probe", "inspect", "change_record", "route", "drain", "stop_group", "launch", "watch", "history"),
    ),
    "rollback": (lambda world: api.rollback(world.named(), None, OPTIONS, QUICK), ("inspect", "history")),
}
"""Commands that change what runs, and the programs whose replies are changed."""


class Liar:
    """Changes one message of one program on one host."""

    def __init__(self, chance: random.Random, host: str, program: str) -> None:
        self._chance, self._host, self._program = chance, host, program
        self.sent: Any = None

    def __call__(self, host: Host, module: str, outputs: Iterable[Output]) -> Iterable[Output]:
        if host.name != self._host or module != self._program:
            yield from outputs
            return
        for output in outputs:
            if isinstance(output, dict) and self.sent is None and self._chance.random() < 0.6:
                output = self.sent = mutated(self._chance, output)
            yield output


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Provide the records that a run leaves."""
    world = World(tmp_path_factory.mktemp("first"))
    api.run(world.request())
    return world.records


@pytest.mark.parametrize(("act", "program"), CASES)
def test_no_reply_ends_a_command(act: str, program: str, records: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    do, running, _ = ACTS[act]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1500 if ALL else 30):
        chance = random.Random(f"{act} {program} {number}")
        world = busy(tmp_path)
        if running:
            world.running, world.records = True, copy.deepcopy(records)
        liar = Liar(chance, chance.choice(("gpu01", "gpu02")), program)
        world.alter = liar
        began = time.monotonic()
        try:
            do(world.request())
        except DeployError:
            pass  # the command's own words, and the exit status that goes with them
        except Exception as error:
            raise AssertionError(f"{act}, {program}, {number}: {str(liar.sent)[:3000]}") from error
        assert time.monotonic() - began < SECONDS, str(liar.sent)[:3000]
        assert len(capsys.readouterr().out) < 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize(
    ("act", "program"), [(act, program) for act, (_, programs) in CHANGES.items() for program in programs]
)
def test_no_reply_ends_a_change(act: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that fails for a reply is put back, or names what finishes it."""
    do, _ = CHANGES[act]
    monkeypatch.chdir(tmp_path)
    first = ChangingWorld(tmp_path)
    api.run(first.wanted(), OPTIONS)
    if act == "rollback":
        api.update(first.wanted(LONGER), OPTIONS, QUICK)
    for number in range(200 if ALL else 4):
        chance = random.Random(f"{act} {program} {number}")
        world = ChangingWorld(tmp_path)
        world.running = True
        world.records, world.kept, world.events = copy.deepcopy((first.records, first.kept, first.events))
        world.alter = liar = Liar(chance, chance.choice(("gpu01", "gpu02")), program)
        began = time.monotonic()
        try:
            do(world)
        except DeployError:
            pass
        except Exception as error:
            raise AssertionError(f"{act}, {program}, {number}: {str(liar.sent)[:3000]}") from error
        assert time.monotonic() - began < SECONDS, str(liar.sent)[:3000]
