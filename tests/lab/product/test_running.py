"""`run` and what follows it: ready, again, changed, two at once, two side by side, stop."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given, is_started

Write = Callable[..., Serve]


def processes_and_ports(lab: Lab, name: str) -> list[str]:
    return [f"{left.host}: {left.what}" for left in lab.leftovers(name) if left.kind != "directory"]


def test_a_deployment_answers_and_goes_without_a_trace(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve()
    ran = operator("run", "-c", served.config)
    assert f"endpoint http://{lab.hosts[0].address}:{served.port}/v1" in ran.out
    assert f"curl http://{lab.hosts[0].address}:{served.port}/v1/chat/completions" in ran.out
    assert "model0/0 is ready: " in ran.out

    home = lab.hosts[0].directory / f"home/.flagscale-deploy/{served.name}/node1"
    record = json.loads((home / "record.json").read_text())
    assert record["deployment"] == served.name
    assert record["roles"] == ["engine"]
    assert [process["pid"] for process in record["processes"]] == [given(lab.hosts[0], served.port)["pid"]]

    processes = lab.processes(served.name)
    stopped = operator("stop", "--name", served.name)
    assert "node1: 1 process ended, none left" in stopped.out
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
    assert (home / "logs").is_dir()
    cleaned = operator("cleanup", "--name", served.name)
    assert str(home).removeprefix(str(lab.hosts[0].directory / "home")) in cleaned.out
    assert lab.leftovers(served.name, processes) == []


def test_what_runs_already_is_not_started_again_and_a_changed_one_is_refused(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve()
    operator("run", "-c", served.config)
    before = lab.processes(served.name)
    assert "Nothing would change." in operator("plan", "-c", served.config).out
    difference = operator("plan", "-c", served.config, "model_args.model0.max-model-len=512", "--json").json[
        "difference"
    ]
    (change,) = difference["servers"]
    assert (change["name"], change["kind"]) == ("model0/0", "restarted")
    assert change["reasons"] == ["+ --max-model-len 512"]
    kept = operator("history", difference["run_id"], "--name", served.name).out
    assert f"configuration of run {difference['run_id']}, kept by node1:" in kept
    assert f"port: {served.port}" in kept
    again = operator("run", "-c", served.config)
    assert f"{served.name} runs already with this very configuration" in again.out
    assert f"endpoint http://{lab.hosts[0].address}:{served.port}/v1" in again.out
    changed = operator("run", "-c", served.config, "model_args.model0.max-model-len=512", exits=4)
    assert "it runs already, with another configuration" in changed.err
    assert "model0/0 would restart: + --max-model-len 512" in changed.err
    assert f"flagscale-deploy stop -i {operator.inventory} --name {served.name}" in changed.err
    assert lab.processes(served.name) == before
    operator("stop", "--name", served.name)


def test_two_deployments_share_a_host_with_gpus_and_ports_of_their_own(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    host, here = lab.hosts[0], ("--limit", "node1")
    one, other = serve(), serve()
    operator("run", "-c", one.config, *here)
    operator("run", "-c", other.config, *here)
    held = [given(host, deployment.port)["environ"]["CUDA_VISIBLE_DEVICES"] for deployment in (one, other)]
    assert held == ["0", "1"]
    third = serve()
    refused = operator("run", "-c", third.config, *here, exits=7)
    assert f"node1: GPU 0: deployment {one.name}" in refused.err
    no_gpu, port = "deploy.models.model0.num_gpus=0", f"model_args.model0.port={one.port}"
    refused = operator("run", "-c", third.config, *here, no_gpu, port, exits=7)
    assert f"port {one.port} on node1, for model0/0, is in use by" in refused.err
    operator("stop", "--name", one.name)
    assert len(lab.processes(other.name)) == 1
    assert operator("call", "hello", "--name", other.name).out == "you said: hello\n"
    operator("stop", "--name", other.name)


def test_of_two_runs_at_once_one_is_told_who_holds_the_lock(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(stand_in="hangs")
    first = operator.start("run", "-c", served.config)
    assert eventually(lambda: is_started(lab.hosts[0], served.port)), first.said
    second = operator("run", "-c", served.config, "--lock-timeout", "0", exits=6)
    assert f"node1: {served.name} is locked: " in second.err
    assert " has been running `run` since " in second.err
    first.send(signal.SIGINT)
    first.end(exits=130)
    assert processes_and_ports(lab, served.name) == []
