"""Ray's nodes join and leave a deployment that runs, on hosts that are functions: what is asked of whom, and when."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.deploy.bring_up import Run
from flagscale_deploy.deploy.open_change import open_change
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.errors import RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Redactor, Secret
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import Heard, answering
from tests.unit.deploy.test_group_change import NOTE, drained, ended, free, ready, routed
from tests.unit.plan.given import RUN, inventory, model, planned, seen, spec

TWO, THREE = ("gpu01", "gpu02"), ("gpu01", "gpu02", "gpu03")
SPEC = spec(
    model(tp=16), secret_env={"HF_TOKEN": Secret("hf_very_secret")}, restart=RestartSpec(policy="on-failure"), ray="on"
)
BEFORE, AFTER = (planned(inventory(*hosts), SPEC) for hosts in (TWO, THREE))
NODE, TOKEN = "Ray on gpu03", "a1" * 32


class Bench:
    """Three hosts: a deployment over Ray runs on those of a plan."""

    def __init__(self, folder: Path, running: Any, wanted: Any, **modules: Any) -> None:
        def inspected(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
            has_part = host.name in running.hosts
            record = {**record_of(running, host.name, {}, ()), "run_id": RUN, "processes": []} if has_part else None
            yield {"record": record, "processes": [], "live": 1, "ranks": {}, "instances": {}, "ray": None}

        def key(host: Host, args: dict[str, Any]) -> Iterable[Output]:
            yield {"key": TOKEN if (host.name, args["of"]) == ("gpu01", "ray") else ""}

        def permitted(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
            yield {"permitted": True}

        programs = {"inspect": inspected, "route": routed, "drain": drained, "stop_group": ended, "internal_key": key,
                    "change_record": free, "watch": ready, "permit_restarts": permitted}  # fmt: skip
        self.fleet, self.heard = FakeFleet(answering(**{**programs, **modules}), THREE), Heard()
        self.redactor = Redactor()
        self.run = Run(wanted, SPEC, self.fleet, RunFolder.make(str(folder), "c1", str), self.redactor, self.heard)
        self.change = open_change(self.fleet, "qwen", "gpu01", NOTE, self.heard)

    def start(self, names: list[str]) -> None:
        self.change.start(self.run, seen(*THREE), names, secrets=False)

    def asked(self, module: str) -> list[tuple[str, list[str]]]:
        """Return host and scripts of each call."""
        return [
            (call.host, call.args.get("scripts") or [call.args.get("script", "")]) for call in self.fleet.sent(module)
        ]


def test_a_node_joins_alone_with_rays_token_and_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BEFORE, AFTER)
    bench.start([NODE])
    assert sorted(bench.asked("launch")) == [("gpu01", ["ray_nodes.sh"]), ("gpu03", ["ray_worker.sh"])]
    joined, counted = (
        next(call.args for call in bench.fleet.sent("launch") if call.host == host) for host in ("gpu03", "gpu01")
    )
    assert joined["files"]["secrets/ray_token"] == [TOKEN, "600"]
    assert joined["files"]["secrets/env"] == ["HF_TOKEN=hf_very_secret\n", "600"]
    assert bench.redactor.redact(TOKEN) != TOKEN
    assert not [name for name in counted["files"] if name.startswith("secrets/")]
    assert "10.0.0.3" in counted["files"]["scripts/ray_nodes.sh"][0]
    (reserved,) = bench.fleet.sent("reserve")
    assert (reserved.host, reserved.args["record"]["roles"]) == ("gpu03", ["ray-worker"])
    assert bench.asked("permit_restarts") == [("gpu03", ["ray_worker.sh"])]
    assert bench.change.note["groups"] == [NODE]
    assert not bench.fleet.sent("watch_ranks")


def test_a_group_that_starts_takes_none_of_the_ports_of_ray_which_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BEFORE, BEFORE)
    bench.start(["qwen/0"])
    joins = [call.args["join"] for call in bench.fleet.sent("change_record") if "join" in call.args]
    assert [sorted(join["ports"]) for join in joins] == [["qwen/0"], []]
    assert not bench.fleet.sent("internal_key")


def test_a_node_ends_after_the_groups_there_and_by_its_own_script(tmp_path: Path) -> None:
    bench = Bench(tmp_path, AFTER, BEFORE)
    names = [NODE, "qwen/0"]
    bench.change.drain(names, 120.0)
    assert [call.host for call in bench.fleet.sent("drain")] == ["gpu01"]
    bench.change.stop(names, 5.0)
    assert bench.asked("stop_group") == [("gpu01", ["vllm_serve_qwen_0.sh"]), ("gpu03", ["ray_worker.sh"])]
    bench.change.together = names
    bench.start(["qwen/0"])
    assert bench.asked("launch") == [("gpu01", ["vllm_serve_qwen_0.sh"])]
    assert bench.change.note["groups"] == names, "what puts it back has to know of the node"


def test_a_node_that_does_not_join_is_stopped_again(tmp_path: Path) -> None:
    def missing(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"log": "/l", "pid": 100, "start_ticks": 7}
        yield {"exit_code": int(args["script"] == "ray_nodes.sh"), "tail": ["missing: 10.0.0.3: no node"]}

    bench = Bench(tmp_path, BEFORE, AFTER, launch=missing)
    with pytest.raises(Exception, match=r"ray_nodes.sh ended with exit status 1"):
        bench.start([NODE])
    assert bench.asked("stop_group") == [("gpu03", ["ray_worker.sh"])]


def test_a_head_without_rays_token_lets_no_node_join(tmp_path: Path) -> None:
    def none(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"key": ""}

    bench = Bench(tmp_path, BEFORE, AFTER, internal_key=none)
    with pytest.raises(RemoteError, match="gpu01: it does not hold the key of its ray"):
        bench.start([NODE])
    assert not bench.fleet.sent("launch")
