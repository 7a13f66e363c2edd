"""Two hosts that are functions, and a deployment of two replicas behind a router that is changed on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flagscale_deploy.api import ChangeOptions, PlanOptions
from flagscale_deploy.api.request import Options, Request, load_request
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.programs.change_record import changed
from tests.fakes import Output
from tests.unit.api.world import World

HOSTS = "hosts: [{name: gpu01, address: 10.0.0.1}, {name: gpu02, address: 10.0.0.2}]\n"
REPLICAS = """\
experiment: {exp_name: qwen, exp_dir: outputs/qwen}
model_args: {qwen: {model: /models/qwen, port: 4567, tensor-parallel-size: 8}}
deploy: {ray: never, models: {qwen: {num_replicas: 2}}}
"""
OPTIONS = PlanOptions(skip=("data-network", "engine-arguments"))
QUICK = ChangeOptions(watch_for=0.01)
LONGER = "model_args.qwen.max-model-len=4096"


class ChangingWorld(World):
    """`gpu01` and `gpu02` have a replica each, `gpu01` the router. Records are changed by the hosts' own code."""

    def __init__(self, folder: Path, config: str = REPLICAS) -> None:
        super().__init__(folder)
        self.inventory, self.config = folder / "hosts.yaml", folder / "qwen.yaml"
        self.inventory.write_text(HOSTS)
        self.config.write_text(config)
        self.programs = {
            "change_record": self.change_record, "drain": self.drain, "route": self.route, "stop_group": self.stop_group
        }  # fmt: skip
        self.variables: dict[str, str] = {}

    def wanted(self, *overrides: str, **options: Any) -> Request:
        """Return the request of a command with the file and these overrides."""
        named = {"inventory": str(self.inventory), "config": str(self.config), "overrides": overrides, **options}
        return load_request(Options(connect=self.connect, acts=True, **named), self.variables)

    def named(self, **options: Any) -> Request:
        """Return the request of a command with the deployment's name alone."""
        return self.wanted(config=None, name="qwen", **options)

    def probe(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        record = self.records.get(host.name, {})
        for reply in super().probe(host, args):
            assert isinstance(reply, dict)
            current = record.get("configuration", record.get("run_id", ""))
            yield {**reply, "kept": self.kept[host.name].get(current, "") if self.running else ""}

    def launch(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if args["files"] or "run_id" not in self.records.get(host.name, {}):
            self._note(host, event="run", run_id=args["run_id"], by="me@here", argv={})
            self._note(host, event="ready", run_id=args["run_id"], server="qwen/0", time=35.0)
            before, replies = self.records.get(host.name, {}), [*super().launch(host, args)]
            if before.get("run_id") == args["run_id"]:
                self.records[host.name] = before
            return replies
        return [{"log": "/l", "pid": 5, "start_ticks": 1}, {"exit_code": None if args["detached"] else 0, "tail": []}]

    def inspect(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        well = {"alive": self.running, "health": 200, "token": True, "why": "", "metrics": None, "restarts": None}
        record = self.records.get(host.name, {})
        servers = {server["name"]: well for place in ("instances", "routers") for server in record.get(place, ())}
        for reply in super().inspect(host, args):
            assert isinstance(reply, dict)
            yield {**reply, "ranks": {}, "instances": servers}

    def change_record(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        self.records[host.name] = dict(changed(self.records[host.name], args))  # type: ignore[arg-type]
        for path, (text, _) in args.get("files", {}).items():
            if path.startswith("runs/"):
                self.kept[host.name][Path(path).stem] = text
        if "event" in args:
            self._note(host, **args["event"])
        yield {"taken": []}

    def drain(self, _host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"idle": True, "requests": 0, "why": ""}

    def route(self, _host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"workers": args["add"], "problem": ""}

    def stop_group(self, _host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"ended": 3, "killed": 0, "survivors": [], "segments": 0}

    def _note(self, host: Host, **event: Any) -> None:
        place = {"schema": 1, "deployment": "qwen", "host": host.name, "server": "", "reason": "", "time": 5.0}
        self.events.setdefault(host.name, []).append({**place, **event})
