"""Two hosts that are functions, and what runs on them: every host program replies as on real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flagscale_deploy.api.request import Options, Request
from flagscale_deploy.errors import ConnectError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.fleet import Connect
from tests.fakes import Call, Exit, Output, Stderr, connecting
from tests.unit.deploy.given import answering, archived, held, reserved
from tests.unit.plan.given import facts, inventory, model, spec

HOSTS = ("gpu01", "gpu02")
Act = Callable[[Host, dict[str, Any]], Iterable[Output]]


class World:
    """Two hosts and what runs on them. Launching an engine makes it run; stopping ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = spec(model(tp=16, port=4567), exp_dir=str(folder))
        self.facts: dict[str, Facts] = {name: facts(name) for name in HOSTS}
        self.refused: dict[str, ConnectError] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.running = False
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.kept: dict[str, dict[str, str]] = {name: {} for name in HOSTS}
        """What each host keeps of its runs, by their ids."""
        self.others: list[str] = []
        self.token = True
        self.complaint = ""
        self.holder: dict[str, Any] | None = None
        self.answers: dict[str, Any] = {"qwen/0": {"answer": {"choices": [{"message": {"content": "Hi"}}]}}}
        self.calls: list[Call] = []
        self.watched: list[dict[str, Any]] = [{"ready": True, "token": "x"}]
        self.watch: Act = lambda _host, _args: list(self.watched)
        self.reserve: Act = reserved
        self.unlock: Act = lambda _host, _args: []
        self.programs: dict[str, Act] = {}
        """Programs beside those that a run needs."""
        self.alter: Callable[[Host, str, Iterable[Output]], Iterable[Output]] = lambda _host, _module, outputs: outputs
        """Changes what a program on a host sends."""

    def request(self, **changed: Any) -> Request:
        return replace(Request(inventory(*HOSTS), self.spec, "qwen", Options(connect=self.connect)), **changed)

    @property
    def connect(self) -> Connect:
        """Return what connects to these hosts."""
        handler = answering(
            probe=self.probe, lock=self.lock, launch=self.launch, watch=self.watch, stop=self.stop,
            inspect=self.inspect, ps=self.ps, history=self.history, chat=self.ask,
            network_test=self.reach, parse_flags=self.parse_flags,
            reserve=self.reserve, unlock=self.unlock,
            cleanup=self.cleanup, archive=self.archive, follow=self.follow, **{"": self.shell}, **self.programs,
        )  # fmt: skip

        def altered(host: Host, module: str, args: dict[str, Any]) -> Iterable[Output]:
            return self.alter(host, module, handler(host, module, args))

        return connecting(altered, self.calls, self.refused)

    def probe(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        facts = asdict(self.facts[host.name])
        record = self.records.get(host.name)
        if record is not None and self.running:
            facts["runs"] = {f"qwen/{record['run_id']}": 3}
            facts["kept"] = self.kept[host.name].get(record["run_id"], "") if host.name == args["hosts"][0] else ""
        yield {**facts, "deployments": [record] if record is not None else []}

    def reach(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        """Connect to the other host's data port, and to Ray's port on the head."""
        yield {"listening": [{"port": port["port"] or 40000 + at} for at, port in enumerate(args["ports"])]}
        yield {"tried": [{"problem": "", "failure": None, "seconds": 0.001}] * (1 if host.name == HOSTS[0] else 2)}

    def follow(self, host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"file": "logs/vllm_serve_qwen_0.log", "lines": [f"OSError: of {host.name}: No space left on device"]}

    def parse_flags(self, _host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"known": [], "parsed": [{"error": self.complaint, "unknown": []} for _ in args["lines"]]}

    def lock(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if self.holder is not None:
            return [{"locked": False, "holder": self.holder}]
        return held(host, args)

    def launch(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        self.records[host.name] = {
            **args["record"],
            "run_id": args["run_id"],
            "started_at": 1.0,
            "boot_id": f"boot-{host.name}",
        }
        kept = args["files"].get(f"runs/{args['run_id']}.json")
        if kept is not None:
            self.kept[host.name][args["run_id"]] = kept[0]
        self.running = True
        yield {"log": "/l", "pid": 5, "start_ticks": 1}
        yield {"exit_code": None if args["detached"] else 0, "tail": []}

    def stop(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        ended, self.running = 3 * self.running, False
        if "failure" in args and host.name in self.records:
            self.records[host.name] |= {"stopped_at": 20.0, "failure": {"at": 10.0, **args["failure"]}}
        yield {"event": "done", "ended": ended, "survivors": [], "ports_left": [], "segments": 0, "seconds": 0.1,
               "after_stop": None, "unclosed": ""}  # fmt: skip

    def inspect(self, host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        well = {"alive": self.running, "health": 200, "token": self.token, "why": "", "metrics": None, "restarts": None}
        yield {
            "record": self.records.get(host.name), "processes": [], "live": 3 * self.running,
            "instances": {"qwen/0": well}, "ray": None, "ranks": {"gcs_server": 1, "raylet": 1},
            **({} if host.name in self.records else {"others": list(self.others)}),
        }  # fmt: skip

    def ps(self, host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        own = []
        if host.name in self.records:
            (seen,) = self.inspect(host, {})
            own = [{"deployment": "qwen", "host": host.name, "seen": seen, "last_event": None}]
        gpus = [{**asdict(gpu), "processes": []} for gpu in self.facts[host.name].gpus]
        yield {"user": "me", "deployments": own, "left_out": 0, "others": [], "gpus": gpus, "gpu_error": None}

    def history(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        kept = self.kept[host.name]
        if args.get("run_id"):
            return [{"events": [], "run": kept[args["run_id"]]}]
        digests = {run_id: hashlib.sha256(text.encode()).hexdigest() for run_id, text in kept.items()}
        return [{"events": list(self.events.get(host.name, ())), "kept": digests}]

    def ask(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        own = self.answers.get(f"{args['server']} on {host.name}")
        yield own or self.answers.get(args["server"]) or {"error": "no such server", "traceback": ""}

    def cleanup(self, host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        self.records.pop(host.name, None)
        yield {"removed": ["/state"], "bytes": 1, "kept": []}

    def archive(self, _host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield from archived({})

    def shell(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield args["command"].encode()
        yield Stderr(b"err")
        yield Exit(HOSTS.index(host.name))

    @property
    def modules(self) -> list[str]:
        return list(dict.fromkeys(call.module for call in self.calls))
