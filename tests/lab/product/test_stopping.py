"""`stop` ends what a deployment started, however it hides, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import given, is_alive

Write = Callable[..., Serve]


def test_children_that_lost_their_environment_and_their_parent_are_ended(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served, host = serve(stand_in="forks"), lab.hosts[0]
    operator("run", "-c", served.config)
    hidden = given(host, served.port)["children"]
    for pid in hidden:
        assert host.run(["cat", f"/proc/{pid}/environ"]).stdout == ""
        assert host.run(["cat", f"/proc/{pid}/cmdline"]).stdout.startswith("VLLM::EngineCore")
    assert host.run(["cat", f"/proc/{hidden[0]}/stat"]).stdout.split()[3] == "1"
    stopped = operator("stop", "--name", served.name)
    assert "node1: 3 processes ended, none left" in stopped.out
    assert not any(is_alive(host, pid) for pid in hidden)


def test_an_orphan_of_an_engine_that_has_died_is_still_found(lab: Lab, operator: Operator, serve: Write) -> None:
    served, host = serve(stand_in="forks"), lab.hosts[0]
    operator("run", "-c", served.config)
    engine = given(host, served.port)
    host.run(["kill", "-9", str(engine["pid"])])
    operator("stop", "--name", served.name)
    assert not is_alive(host, engine["children"][0])


def test_an_engine_that_ignores_sigterm_is_killed_after_its_grace(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(stand_in="stubborn", deploy={"ray": "off", "timeouts": {"stop": 1}})
    operator("run", "-c", served.config)
    processes = lab.processes(served.name)
    stopped = operator("stop", "-c", served.config)
    assert "SIGKILL to 1 process that did not end" in stopped.err
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []


def test_everybody_elses_processes_live_on(lab: Lab, operator: Operator, serve: Write) -> None:
    served, neighbour, host = serve(), serve(), lab.hosts[0]
    for deployment in (served, neighbour):
        operator("run", "-c", deployment.config)
    others = [
        in_background(host, f"exec -a 'vllm serve {served.name}' sleep 3600"),
        in_background(host, f"exec python3 -c 'import time; time.sleep(3600)' vllm serve /models/tiny {served.name}"),
        in_background(host, f"exec env FLAGSCALE_DEPLOY_RUN={served.name}-2/r1 sleep 3600"),
        in_background(host, f"exec setpriv --reuid 65534 env FLAGSCALE_DEPLOY_RUN={served.name}/r1 sleep 3600"),
    ]
    operator("stop", "--name", served.name)
    operator("cleanup", "--name", served.name)
    assert all(is_alive(host, pid) for pid in others)
    status = operator("status", "--name", neighbour.name, "--json").json
    assert status["state"] == "ready"
    host.run(["kill", *map(str, others)])
    operator("stop", "--name", neighbour.name)


def in_background(host: Host, command: str) -> int:
    """Start a program in a session of its own, as another login would; its pid."""
    started = host.run(f"setsid bash -c {_quoted(command)} </dev/null >/dev/null 2>&1 & echo $!")
    return int(started.stdout)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def test_a_host_that_cannot_be_reached_is_unknown_and_the_others_are_stopped(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(models=3)
    operator("run", "-c", served.config)
    assert {process.host for process in lab.processes(served.name)} == {"node1", "node2"}
    lab.hosts[1].cut()
    try:
        stopped = operator("stop", "-c", served.config, "--json", exits=3).json
        states = {name: host["state"] for name, host in stopped["hosts"].items()}
        assert states == {"node1": "stopped", "node2": "UNKNOWN"}
        assert {process.host for process in lab.processes(served.name)} == {"node2"}
    finally:
        lab.hosts[1].join()
    operator("stop", "-c", served.config)
    assert lab.processes(served.name) == []


def test_what_was_never_there_is_nothing_to_stop(operator: Operator) -> None:
    for command in ("stop", "cleanup", "stop"):
        ended = operator(command, "--name", "never-there", "--json").json
        assert {host["state"] for host in ended["hosts"].values()} == {"nothing"}
