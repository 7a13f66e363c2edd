"""One group of a running deployment is changed: no request is lost, nothing else is touched or forgotten."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from flagscale_deploy.deploy.group_change import STEPS
from tests.environments.build import mounts
from tests.lab import Host, Lab
from tests.lab.product import stand_in as stand_ins
from tests.lab.product.operator import Operator, Running, eventually
from tests.lab.product.stand_in import StandIn, given, is_alive

NAME, PORT = "changed", 7800
SENTENCE = "hello one two three four five"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": SENTENCE}], "stream": True}
GROUPS = {"model0/0": (0, PORT), "model0/1": (1, PORT), "model0/2": (0, PORT + 1)}
"""Which host a group is on, by its number, and its port there."""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    folder = tmp_path_factory.mktemp("stand-in")
    environment = stand_ins.make_environment(folder / "environment")
    stand_ins.add_router(environment)
    return StandIn(environment, folder)


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    return make_lab(hosts=2, gpus=2, mounts=mounts(stand_in.environment))


@pytest.fixture(scope="module")
def operator(lab: Lab, stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    sits = Operator(folder, lab.inventory(folder / "hosts.yaml", venv=str(stand_in.environment)))
    yield sits
    for running in sits.started:
        running.abandon()


@pytest.fixture(scope="module")
def served(lab: Lab, operator: Operator) -> str:
    """Return the endpoint of three replicas on two hosts behind a router, which runs for the whole module."""
    operator("run", "-c", write(operator.directory, 100), "--skip-check", "engine-arguments")
    return f"http://{lab.hosts[0].address}:30000/v1"


def write(folder: Path, length: int, **envs: str) -> Path:
    """Write the configuration, with engines that have this `max-model-len`."""
    flags = {"model-tag": "lab/tiny", "served-model-name": "tiny", "port": PORT, "max-model-len": length}
    content = {
        "experiment": {"exp_name": NAME, "envs": {"STAND_IN": "streams", **envs}},
        "model_args": {"model0": flags},
        "deploy": {
            "ray": "off",
            "restart": {"policy": "on-failure", "backoff": 0.1},
            "timeouts": {"connect": 4, "ready": 60, "stop": 5},
            "models": {"model0": {"num_replicas": 3}},
        },
    }
    path = folder / f"{length}.yaml"
    path.write_text(json.dumps(content))
    return path


def change(operator: Operator, group: str, length: int, *step: str, **envs: str) -> Running:
    config = write(operator.directory, length, **envs)
    words = (str(operator.inventory), str(config), group, *step)
    return operator.start_program(sys.executable, "-m", "tests.lab.product.change_one", *words)


def host_of(lab: Lab, group: str) -> Host:
    return lab.hosts[GROUPS[group][0]]


def engine(lab: Lab, group: str) -> dict[str, Any]:
    return given(host_of(lab, group), GROUPS[group][1])


class Clients:
    """Clients that ask for streams all the time. `failed` has what went wrong, `whole` how many came to their end."""

    def __init__(self, endpoint: str, number: int = 6) -> None:
        self.failed: list[str] = []
        self.whole = 0
        self._over, self._counting = threading.Event(), threading.Lock()
        self._url = f"{endpoint}/chat/completions"
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        assert self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def go_on(self) -> bool:
        """Wait until each has had several whole streams more, or one failed."""
        before = self.whole
        return eventually(lambda: self.failed or self.whole >= before + 12) and not self.failed

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                headers = {"Content-Type": "application/json"}
                with urlopen(Request(self._url, json.dumps(QUESTION).encode(), headers), timeout=60) as reply:
                    lines = [line.decode()[6:].strip() for line in reply if line.startswith(b"data: ")]
                assert lines[-1] == "[DONE]", f"cut after {lines[-1:]}"
                words = [json.loads(line)["choices"][0]["delta"]["content"] for line in lines[:-1]]
                assert "".join(words) == f"you said: {SENTENCE}"
            except (OSError, AssertionError, IndexError, ValueError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            else:
                with self._counting:
                    self.whole += 1


def test_a_group_is_changed_while_clients_stream_and_no_request_fails(
    lab: Lab, operator: Operator, served: str
) -> None:
    before = {group: engine(lab, group) for group in GROUPS}
    with Clients(served) as clients:
        changed = change(operator, "model0/1", 200).end(0)
        assert clients.go_on()
    assert clients.failed == []
    assert "model0/1: has no request" in changed.out
    after = {group: engine(lab, group) for group in GROUPS}
    assert "--max-model-len=200" in after["model0/1"]["argv"]
    assert not is_alive(host_of(lab, "model0/1"), before["model0/1"]["pid"])
    for group in ("model0/0", "model0/2"):
        assert after[group] == before[group]
        assert is_alive(host_of(lab, group), after[group]["pid"])
    status = operator("status", "--name", NAME, "--json").json
    assert (status["state"], status["change"]) == ("ready", None)
    assert [server["state"] for server in status["instances"]] == ["ready"] * 3
    assert ["--max-model-len=200" in server["argv"] for server in status["instances"]] == [False, True, False]


def test_a_changed_group_has_a_supervisor_as_before(lab: Lab, operator: Operator, served: str) -> None:
    before = engine(lab, "model0/1")["pid"]
    host_of(lab, "model0/1").run(["kill", "-9", str(before)])
    assert eventually(lambda: engine(lab, "model0/1")["pid"] != before)
    assert eventually(lambda: operator("status", "--name", NAME, exits=None).code == 0, every=0.5)


def test_a_group_that_does_not_start_leaves_the_others_alone_and_is_named_until_it_is_back(
    lab: Lab, operator: Operator, served: str
) -> None:
    with Clients(served) as clients:
        failed = change(operator, "model0/2", 300, STAND_IN="dies", STAND_IN_ERROR="ValueError: no weights").end(1)
        assert "ValueError: no weights" in failed.err
        status = operator("status", "--name", NAME, "--json", exits=1).json
        assert (status["state"], status["change"]["groups"], status["change"]["step"]) == (
            "changing",
            ["model0/2"],
            "start",
        )
        assert [server["state"] for server in status["instances"]] == ["ready", "ready", "changing"]
        assert not any(f"--port={PORT + 1}" in process.command for process in lab.processes(NAME))
        change(operator, "model0/2", 300).end(0)
        assert clients.go_on()
    assert clients.failed == []
    assert operator("status", "--name", NAME, "--json").json["change"] is None


def test_an_operator_who_is_killed_leaves_a_change_that_status_names_and_stop_ends_all_of_it(
    lab: Lab, operator: Operator, served: str
) -> None:
    others = {group: engine(lab, group) for group in ("model0/1", "model0/2")}
    states = []
    with Clients(served) as clients:
        for step in STEPS:
            changing = change(operator, "model0/0", 400, step)
            changing.wait_for(f"waiting at {step}")
            changing.abandon()
            status = operator("status", "--name", NAME, "--json", exits=1).json
            assert (status["state"], status["change"]["groups"], status["change"]["step"]) == (
                "changing",
                ["model0/0"],
                step,
            )
            states.append(status["instances"][0]["state"])
        shown = operator("status", "--name", NAME, exits=1).out
        assert f"change {status['change']['run_id']} of {status['change']['operator']}, since " in shown
        assert f"model0/0: {STEPS['return']}" in shown
        assert clients.go_on()
    assert clients.failed == []
    assert states == ["ready", "ready", "changing", "ready"]
    assert {group: engine(lab, group) for group in others} == others
    processes = lab.processes(NAME)
    operator("stop", "--name", NAME)
    assert lab.processes(NAME) == []
    status = operator("status", "--name", NAME, "--json").json
    assert (status["state"], status["change"]) == ("stopped", None)
    operator("cleanup", "--name", NAME)
    assert lab.leftovers(NAME, processes) == []
