"""A running deployment is changed: no request is lost, nothing else is touched, and what fails is put back."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest

from flagscale_deploy.deploy.change_steps import STEPS
from tests.environments.build import mounts
from tests.lab import Host, Lab
from tests.lab.product import stand_in as stand_ins
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import StandIn, given, is_alive

NAME, PORT = "changed", 7800
SENTENCE = "hello one two three four five"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": SENTENCE}], "stream": True}
UNCHECKED = ("--skip-check", "engine-arguments")
QUICK = (*UNCHECKED, "--watch-for", "1s")
GROUPS = {"model0/0": (0, PORT), "model0/1": (1, PORT), "model0/2": (0, PORT + 1)}
"""Which host a group is on, by its number, and its port there."""

UPDATE_SECONDS = 12.0
"""About as long as the update takes of which the operator is killed."""


class Moment(NamedTuple):
    """When the operator is killed, in seconds after the update began; whether the update is resumed then."""

    after: float
    resumed: bool

    @property
    def words(self) -> tuple[str, ...]:
        return ("--resume",) if self.resumed else ()


def moments() -> list[Moment]:
    """Return thirty moments of the day."""
    dice = Random(os.environ.get("FSD_FAULTS_SEED") or time.strftime("%Y%m%d", time.gmtime()))
    return [Moment(round(dice.uniform(0, UPDATE_SECONDS), 2), turn % 2 == 0) for turn in range(30)]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    folder = tmp_path_factory.mktemp("stand-in")
    environment = stand_ins.make_environment(folder / "environment")
    stand_ins.add_router(environment)
    return StandIn(environment, folder)


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    return make_lab(hosts=2, gpus=3, mounts=mounts(stand_in.environment))


@pytest.fixture(scope="module")
def operator(lab: Lab, stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    sits = Operator(folder, lab.inventory(folder / "hosts.yaml", venv=str(stand_in.environment)))
    sits.env["LAB_TOKEN"] = "token-of-old"
    yield sits
    for running in sits.started:
        running.abandon()


@pytest.fixture(scope="module")
def served(lab: Lab, operator: Operator) -> str:
    """Return the endpoint of three replicas on two hosts behind a router, which runs for the whole module."""
    operator("run", "-c", write(operator.directory, 100), *UNCHECKED)
    return f"http://{lab.hosts[0].address}:30000/v1"


def write(folder: Path, length: int, **envs: str) -> Path:
    """Write the configuration, with engines that have this `max-model-len`."""
    flags = {"model-tag": "lab/tiny", "served-model-name": "tiny", "port": PORT, "max-model-len": length}
    content = {
        "experiment": {"exp_name": NAME, "envs": {"STAND_IN": "streams", **envs}},
        "model_args": {"model0": flags},
        "deploy": {
            "ray": "off",
            "secrets": ["LAB_TOKEN"],
            "restart": {"policy": "on-failure", "backoff": 0.1},
            "timeouts": {"connect": 4, "ready": 60, "stop": 5},
            "models": {"model0": {"num_replicas": 3}},
        },
    }
    path = folder / f"{length}.yaml"
    path.write_text(json.dumps(content))
    return path


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


def lengths(lab: Lab) -> list[str]:
    """Return the `--max-model-len` of each group that serves, in the order of GROUPS."""
    return [
        next(word.partition("=")[2] for word in engine(lab, group)["argv"] if word.startswith("--max-model-len="))
        for group in GROUPS
    ]


def token_on(host: Host) -> str | None:
    """Return the rotated secret's value in the files that the host has of the deployment."""
    files = host.file(f"/root/.flagscale-deploy/{NAME}/{host.name}/secrets").rglob("*")
    texts = [path.read_text() for path in files if path.is_file()]
    return next((match[0] for text in texts if (match := re.search(r"token-of-\w+", text))), None)


def status_of(operator: Operator, exits: int | None = 0) -> Any:
    return operator("status", "--name", NAME, "--json", exits=exits).json


def events_of(operator: Operator) -> list[str]:
    return [change["event"] for change in operator("history", "--name", NAME, "--json").json["changes"]]


def test_groups_are_changed_one_after_the_other_while_clients_stream_and_no_request_fails(
    lab: Lab, operator: Operator, served: str
) -> None:
    before = {group: engine(lab, group) for group in GROUPS}
    with Clients(served) as clients:
        changed = operator("update", "-c", write(operator.directory, 200), *QUICK)
        assert clients.go_on()
    assert clients.failed == []
    assert "model0/1: has no request" in changed.err
    assert "--max-model-len 100 → 200" in changed.said
    assert lengths(lab) == ["200"] * 3
    assert not any(is_alive(host_of(lab, group), before[group]["pid"]) for group in GROUPS)
    status = status_of(operator)
    assert (status["state"], status["change"]) == ("ready", None)
    again = operator("update", "-c", operator.directory / "200.yaml", *QUICK)
    assert "Nothing to change" in again.out
    planned = operator("plan", "-c", operator.directory / "200.yaml", "--json").json
    assert {server["kind"] for server in planned["difference"]["servers"]} == {"unchanged"}
    assert events_of(operator)[-1] == "updated"


def test_a_changed_group_has_a_supervisor_as_before(lab: Lab, operator: Operator, served: str) -> None:
    before = engine(lab, "model0/1")["pid"]
    host_of(lab, "model0/1").run(["kill", "-9", str(before)])
    assert eventually(lambda: engine(lab, "model0/1")["pid"] != before)
    assert eventually(lambda: operator("status", "--name", NAME, exits=None).code == 0, every=0.5)


def test_replicas_come_and_go_and_a_host_is_left_out(lab: Lab, operator: Operator, served: str) -> None:
    config = operator.directory / "200.yaml"
    kept = engine(lab, "model0/0")
    with Clients(served) as clients:
        operator("update", "-c", config, "deploy.models.model0.num_replicas=2", *QUICK)
        assert [server["name"] for server in status_of(operator)["instances"]] == ["model0/0", "model0/1"]
        back = operator("rollback", "--name", NAME, *QUICK)
        assert "model0/2: added" in back.out
        assert clients.go_on()
        out = operator("update", "-c", config, "--without", "node2", *QUICK)
        assert "model0/1" in out.said
        assert [server["hosts"] for server in status_of(operator)["instances"]] == [["node1"]] * 3
        assert clients.go_on()
        refused = operator("rollback", "--name", NAME, *QUICK, exits=4)
        assert "node2 has no part in it now, and no value of its secrets is kept" in refused.err
        lab.hosts[0].set_gpus(2)  # so that one of three has to move
        operator("update", "-c", config, *QUICK)
        lab.hosts[0].set_gpus(3)
        assert clients.go_on()
    assert clients.failed == []
    assert engine(lab, "model0/0") == kept, "it went on all the time"
    assert [server["hosts"] for server in status_of(operator)["instances"]] == [["node1"], ["node2"], ["node1"]]


def test_what_does_not_become_ready_is_put_back_by_itself(
    lab: Lab, operator: Operator, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails is one group more, which brings its host a new secret: no group restarts for the old one."""
    before = engine(lab, "model0/1")
    bad = write(operator.directory, 300, STAND_IN="dies", STAND_IN_ERROR="ValueError: no weights")
    with Clients(served) as clients:
        with monkeypatch.context() as rotated:
            rotated.setitem(operator.env, "LAB_TOKEN", "token-of-new")
            failed = operator("update", "-c", bad, "--surge", "1", *QUICK, exits=5)
        assert clients.go_on()
    assert clients.failed == []
    assert [token_on(host) for host in lab.hosts] == ["token-of-old"] * 2
    assert "ValueError: no weights" in failed.err
    assert "what was changed is put back" in failed.err
    assert lengths(lab) == ["200"] * 3
    assert engine(lab, "model0/1") == before, "nothing was wrong with it"
    assert status_of(operator)["state"] == "ready"
    assert events_of(operator)[-1] == "put back"


def test_an_interrupt_puts_back_what_was_changed(lab: Lab, operator: Operator, served: str) -> None:
    with Clients(served) as clients:
        changing = operator.start("update", "-c", write(operator.directory, 400), "-v", *QUICK)
        changing.wait_for("model0/1: out of its router")
        changing.send(signal.SIGINT)
        changing.end(5)
        assert clients.go_on()
    assert clients.failed == []
    assert lengths(lab) == ["200"] * 3
    assert status_of(operator)["change"] is None


def test_an_operator_who_is_killed_leaves_a_change_that_is_named_and_finished_or_put_back(
    lab: Lab, operator: Operator, served: str
) -> None:
    lengths_now, other = "200", "500"
    with Clients(served) as clients:
        for number, step in enumerate(STEPS):
            config = write(operator.directory, int(other))
            changing = operator.start("update", "-c", config, "-v", *QUICK)
            changing.wait_for(f"model0/0: {STEPS[step]}")
            changing.abandon()
            status = status_of(operator, exits=1)
            assert (status["state"], status["change"]["groups"]) == ("changing", ["model0/0"])
            refused = operator("update", "-c", config, exits=4)
            assert "is not over" in refused.err
            if number % 2:
                operator("update", "--resume", "--name", NAME, *QUICK)
                lengths_now, other = other, lengths_now
            else:
                operator("rollback", "--name", NAME, *QUICK)
            assert lengths(lab) == [lengths_now] * 3
            assert status_of(operator)["change"] is None
        assert clients.go_on()
    assert clients.failed == []


if os.environ.get("FSD_FAULTS") == "all":

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("moment", moments(), ids=str)
    def test_a_change_whose_operator_is_killed_at_any_moment_is_named_and_finished_or_put_back(
        lab: Lab, operator: Operator, served: str, moment: Moment
    ) -> None:
        """FSD_FAULTS_SEED repeats the moments of a day."""
        before = lengths(lab)[0]
        wanted = "500" if before == "200" else "200"
        with Clients(served) as clients:
            changing = operator.start("update", "-c", write(operator.directory, int(wanted)), *QUICK)
            changing.wait_for("--max-model-len")
            time.sleep(moment.after)
            changing.abandon()
            status = status_of(operator, exits=None)
            if status["change"] is None:  # before the first step, or after the last one
                assert (status["state"], len({*lengths(lab)})) == ("ready", 1)
            else:
                assert status["state"] == "changing"
                assert "is not over" in operator("update", "-c", operator.directory / f"{wanted}.yaml", exits=4).err
                operator("update" if moment.resumed else "rollback", *moment.words, "--name", NAME, *QUICK)
                assert lengths(lab) == [wanted if moment.resumed else before] * 3
            assert status_of(operator)["change"] is None
            assert {token_on(host) for host in lab.hosts} == {"token-of-old"}
            assert clients.go_on()
        assert clients.failed == []


def test_stop_ends_a_change_that_is_not_over_and_nothing_is_left(lab: Lab, operator: Operator, served: str) -> None:
    changing = operator.start("update", "-c", write(operator.directory, 600), "-v", *QUICK)
    changing.wait_for(f"model0/0: {STEPS['start']}")
    second = operator("update", "-c", operator.directory / "600.yaml", exits=6)
    assert "`update`" in second.err
    changing.abandon()
    processes = lab.processes(NAME)
    operator("stop", "--name", NAME)
    assert lab.processes(NAME) == []
    status = status_of(operator)
    assert (status["state"], status["change"]) == ("stopped", None)
    operator("cleanup", "--name", NAME)
    assert lab.leftovers(NAME, processes) == []
