"""Two operators: one lock on the head, and what becomes of whoever loses it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from urllib.request import Request, urlopen

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import is_started

Write = Callable[..., Serve]
QUESTION = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}).encode()
JSON = {"Content-Type": "application/json"}


def test_a_living_holder_is_named_and_left_alone_and_stops_where_it_is_when_it_is_forced_out(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="hangs", deploy={"ray": "off", "timeouts": {"connect": 4, "ready": 120, "stop": 2}})
    running = operator.start("run", "-c", served.config)
    assert eventually(lambda: is_started(lab.hosts[0], served.port)), running.said

    for command in ("stop", "cleanup", "run"):
        refused = operator(command, "-c", served.config, "--lock-timeout", "0", exits=6)
        assert re.search(
            r"node1: \S+ is locked: \S+@\S+ \(from [\d.:a-f]+\) has been running `run` since \d{4}-", refused.err
        )
        assert "unlock" in refused.err
    refused = operator("unlock", "--name", served.name, exits=6)
    assert re.search(r"it still runs \(pid \d+\), last sign of life \d s ago", refused.err)
    assert is_started(lab.hosts[0], served.port)

    forced = operator("unlock", "--name", served.name, "--force")
    assert re.search(rf"the lock of {served.name} is free; ended: \S+@\S+ .* has been running `run`", forced.out)
    ended = running.end(exits=6, within=20)
    assert re.search(rf"node1: the lock of {served.name} was lost: \S+@\S+ released it with unlock", ended.err)
    assert "left as it is" in ended.err
    assert lab.processes(served.name), "it took down what it was no longer to touch"

    assert "nobody holds the lock" in operator("unlock", "--name", served.name).out
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name) == []


def test_unlock_says_that_there_is_nothing_to_unlock(operator: Operator) -> None:
    done = operator("unlock", "--name", "never-there", "--json").json
    assert (done["state"], done["host"], done["holder"]) == ("free", "node1", {})


def test_two_runs_at_the_same_moment_get_different_gpus_and_ports_and_one_serves_on_while_the_other_is_stopped(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    """Both are planned from the same look at the hosts. Requests go on through the stop, and none of them fails."""
    flags = {"tensor-parallel-size": 2, "port": "auto"}
    first, second = serve(flags=flags), serve(flags=flags)
    running = [operator.start("run", "-c", deployment.config, "--json") for deployment in (first, second)]
    ended = [command.end(exits=0) for command in running]
    places = [f"{result.json['endpoints'][0]['endpoint']}" for result in ended]
    assert len(set(places)) == 2
    held = [held_gpus(lab, deployment.name) for deployment in (first, second)]
    assert sorted(held[0] + held[1]) == [("node1", 0), ("node1", 1), ("node2", 0), ("node2", 1)]

    asked, failed, stopping = 0, [], threading.Event()

    def ask() -> None:
        nonlocal asked
        while not stopping.is_set():
            try:
                request = Request(places[1] + "/chat/completions", data=QUESTION, headers=JSON)
                with urlopen(request, timeout=10) as answer:
                    assert b"you said: hello" in answer.read()
                asked += 1
            except (OSError, AssertionError) as error:
                failed.append(str(error))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for command in askers:
        command.start()
    try:
        assert eventually(lambda: asked > 50 or failed)
        operator("stop", "--name", first.name)
        operator("cleanup", "--name", first.name)
        after = asked
        assert eventually(lambda: asked > after + 50 or failed)
    finally:
        stopping.set()
        for command in askers:
            command.join()
    assert failed == []
    assert operator("status", "--name", second.name, "--json").json["state"] == "ready"
    assert [left for left in lab.leftovers(first.name) if left.kind != "directory"] == []  # one is the other's
    operator("cleanup", "--name", second.name)
    assert lab.leftovers(second.name) == []


def test_a_run_that_finds_its_port_taken_by_a_run_of_the_same_moment_says_by_which(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    first, second = serve(), serve()
    for deployment in (first, second):
        deployment.config.write_text(deployment.config.read_text().replace(f"port: {deployment.port}", "port: 7777"))
    running = [operator.start("run", "-c", deployment.config) for deployment in (first, second)]
    ended = [command.end(exits=None) for command in running]
    assert sorted(result.code for result in ended) == [0, 7]
    loser = next(result for result in ended if result.code == 7)
    winner = (first, second)[[result.code for result in ended].index(0)]
    assert re.search(rf"port 7777 .*(in use|taken).* by .*({winner.name}|vllm)", loser.err)
    operator("cleanup", "--name", winner.name)
    assert lab.leftovers(first.name) + lab.leftovers(second.name) == []


def held_gpus(lab: Lab, deployment: str) -> list[tuple[str, int]]:
    """Return the GPUs that a deployment's records name, with their hosts."""
    gpus = []
    for host in lab.hosts:
        path = host.directory / f"home/.flagscale-deploy/{deployment}/{host.name}/record.json"
        if path.exists():
            gpus += [(host.name, index) for index in json.loads(path.read_text())["gpus"]]
    return gpus
