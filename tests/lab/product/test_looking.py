"""`status` and `call`: what is really there, and what it answers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given

Write = Callable[..., Serve]


def test_a_deployment_is_ready_then_dead_then_stopped(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve()
    named = ("--name", served.name)
    assert operator("status", *named, "--json").json["state"] == "absent"
    operator("run", "-c", served.config)
    ready = operator("status", *named, "--json").json
    assert (ready["schema"], ready["deployment"], ready["state"]) == (1, served.name, "ready")
    (instance,) = ready["instances"]
    assert (instance["driver"], instance["state"], instance["gpus"]) == ("node1", "ready", {"node1": [0]})
    assert instance["endpoint"] == f"http://{lab.hosts[0].address}:{served.port}/v1"
    assert {host["host"]: host["processes"] for host in ready["hosts"]} == {"node1": 1, "node2": 0}
    shown = operator("status", *named).out
    assert f"{served.name}: ready" in shown
    assert instance["endpoint"] in shown

    fleet = operator("ps", "--json").json
    (listed,) = [one for one in fleet["deployments"] if one["name"] == served.name]
    assert (listed["state"], listed["ready"], listed["wanted"]) == ("ready", 1, 1)
    assert (listed["endpoints"], listed["gpus"]) == ([instance["endpoint"]], {"node1": [0]})
    assert [gpu["deployment"] for gpu in fleet["gpus"] if (gpu["host"], gpu["index"]) == ("node1", 0)] == [served.name]
    assert re.search(rf"^{served.name} .* ready +1 of 1 ", operator("ps").out, re.MULTILINE)

    assert operator("call", "hi", *named).out == "you said: hi\n"
    assert operator("call", "--stream", "hi there", *named).out == "you said: hi there\n"
    answer = operator("call", "hi", *named, "--system", "be brief", "--max-tokens", "5", "--json").json
    assert answer["choices"][0]["message"]["role"] == "assistant"

    a_benchmark_that_is_interrupted_leaves_nothing(lab, operator, served.name)

    server = str(given(lab.hosts[0], served.port)["pid"])
    lab.hosts[0].run(["kill", "-STOP", server])
    hangs = operator("status", *named, "--json", exits=1).json
    assert (hangs["state"], hangs["instances"][0]["state"]) == ("unwell", "unwell")
    assert "it does not answer: timed out; process " in hangs["instances"][0]["problem"]
    lab.hosts[0].run(["kill", "-CONT", server])
    assert operator("status", *named, "--json").json["state"] == "ready"

    lab.hosts[0].run(["kill", "-9", server])
    dead = operator("status", *named, "--json", exits=1).json
    assert (dead["state"], dead["instances"][0]["state"]) == ("dead", "dead")
    refused = operator("call", "hi", *named, exits=1)
    assert "nothing of it runs any more" in refused.err

    operator("stop", *named)
    assert "it is stopped since 20" in operator("call", "hi", *named, exits=1).err
    stopped = operator("status", *named, "--json").json
    assert (stopped["state"], stopped["instances"][0]["state"]) == ("stopped", "stopped")


def a_benchmark_that_is_interrupted_leaves_nothing(lab: Lab, operator: Operator, name: str) -> None:
    host, hold = lab.hosts[1], "/dev/shm/hold-bench"
    words = ("bench", "--name", name, "--from", "node2")
    busy = operator(*words, exits=7)
    assert "model0/0: it does not count its requests" in busy.err
    host.run(["touch", hold])
    running = operator.start(*words, "--force")
    assert eventually(lambda: "bench serve" in host.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", check=False).stdout)
    running.send(signal.SIGINT)
    running.end(130)
    assert eventually(
        lambda: "fsd-bench" not in host.run("ls -d /tmp/* 2>&1; cat /proc/[0-9]*/cmdline", check=False).stdout
    )
    host.run(["rm", hold])
    report = operator(*words, "--force", "--rate", "1,inf", "--num-prompts", "3", "--json").json
    assert [(point["rate"], point["completed"]) for point in report["points"]] == [("1", 3), ("inf", 3)]


def test_a_host_that_cannot_be_reached_is_unknown(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve()
    operator("run", "-c", served.config)
    for index, instance in ((1, "ready"), (0, "UNKNOWN")):
        lab.hosts[index].cut()
        try:
            status = operator("status", "-c", served.config, "--json", exits=3).json
        finally:
            lab.hosts[index].join()
        assert status["state"] == "UNKNOWN"
        assert status["hosts"][index]["state"] == "UNKNOWN"
        assert [instance["state"] for instance in status["instances"]] in ([instance], [])
    operator("stop", "-c", served.config)


def test_what_is_not_there_cannot_be_called(operator: Operator) -> None:
    refused = operator("call", "hi", "--name", "nowhere", exits=1)
    assert "nowhere: no host has a deployment of this name" in refused.err
