"""Servers leave a gate that runs, and come back: what the gate itself says of that counts."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.component.gate.gate import KEYS, SECONDS, Gate, ask, begin_stream, wait_until
from tests.component.gate.stand_in import MODEL, StandIn
from tests.component.remote.living import Home
from tests.component.remote.programs.test_route import free_port

BODY = {"model": MODEL}


@pytest.fixture
def servers() -> Iterator[tuple[StandIn, StandIn]]:
    with StandIn() as first, StandIn() as second:
        yield first, second


class Deployed(Gate):
    """A gate as a deployment has it: its configuration in `scripts`, its process recorded."""

    port = 0

    def __init__(self, folder: Path, models: dict[str, list[str]], **settings: Any) -> None:
        self.home = Home(folder, f"test-{uuid.uuid4().hex[:12]}")
        super().__init__(self.home.state / "scripts", models, metrics_port=free_port(), **settings)

    def __enter__(self) -> Deployed:
        super().__enter__()
        assert self.process is not None
        self.home.record({"gate": self.process.pid})
        return self

    def _replace(self, path: Path, text: str) -> None:
        super()._replace(path, text)
        if self.port:
            assert self.process is not None
            self.process.send_signal(signal.SIGHUP)  # it looks at once

    def route(self, timeout: float = SECONDS, **wish: Any) -> dict[str, Any]:
        (reply,) = self.home.hear("route_gate", timeout=timeout, **{"remove": [], "add": {}, **wish})
        return reply


def test_a_server_leaves_and_comes_back_while_the_other_answers(
    servers: tuple[StandIn, StandIn], tmp_path: Path
) -> None:
    first, second = servers
    well = {"problem": "", "open": 0, "restart_needed": False}
    with Deployed(tmp_path, {MODEL: [first.url, second.url], "adapter": [first.url, second.url]}) as gate:
        for _ in range(2):
            assert gate.route(remove=[first.url]) == well
            ports = {ask(gate, body={"model": name}).json["port"] for name in (MODEL, "adapter") for _ in range(4)}
            assert ports == {second.port}
        for _ in range(2):
            assert gate.route(add={MODEL: [first.url], "adapter": [first.url]}) == well
            ports = {ask(gate, body={"model": name}).json["port"] for name in (MODEL, "adapter") for _ in range(4)}
            assert ports == {first.port, second.port}


def test_requests_of_a_server_that_left_are_waited_for_and_counted(
    servers: tuple[StandIn, StandIn], tmp_path: Path
) -> None:
    first, second = servers
    with Deployed(tmp_path, {MODEL: [first.url]}) as gate:
        with begin_stream(gate, BODY | {"tokens": 2, "hold": True}):
            assert gate.route(timeout=0.0, remove=[first.url], add={MODEL: [second.url]})["open"] == 1
            wait_until(lambda: "was read again" in gate.log.read_text())
            left = gate.route(timeout=0.0, remove=[first.url])
            assert (left["problem"], left["open"]) == ("", 1)
            assert ask(gate, body=BODY).json["port"] == second.port
        assert gate.route(remove=[first.url])["open"] == 0


def test_a_request_that_one_server_refuses_is_not_sent_to_another_that_left_meanwhile(
    servers: tuple[StandIn, StandIn], tmp_path: Path
) -> None:
    first, second = servers
    with ThreadPoolExecutor() as pool:
        with Deployed(tmp_path, {MODEL: [first.url, second.url]}, hold=SECONDS) as gate:
            asking = pool.submit(ask, gate, body=BODY | {"hold": True, "status": 503})
            wait_until(lambda: first.open == 1)
            assert gate.route(remove=[second.url])["problem"] == ""
            first.release()
            wait_until(lambda: len(first.arrivals) == 2, "the next pass has begun")
            assert second.arrivals == []
        assert asking.exception(SECONDS)


def test_without_a_server_requests_wait_for_one_to_come_back(servers: tuple[StandIn, StandIn], tmp_path: Path) -> None:
    first, _ = servers
    with Deployed(tmp_path, {MODEL: [first.url]}) as gate:
        assert gate.route(remove=[first.url])["problem"] == ""
        assert ask(gate, body=BODY).status == 503
        assert gate.route(add={MODEL: [first.url]})["problem"] == ""
        assert ask(gate, body=BODY).status == 200


def test_files_that_the_gate_cannot_use_are_told_of_and_those_that_it_can_are_waited_for(
    servers: tuple[StandIn, StandIn], tmp_path: Path
) -> None:
    with Deployed(tmp_path, {MODEL: [servers[0].url]}, keys=None) as gate:
        gate.write_keys({"carol": "sk-carol-0123456789"})
        assert gate.route()["problem"] == ""
        gate.keys_file.unlink()
        gate.write(keys=str(gate.keys_file))
        wait_until(lambda: "the configuration before stays" in gate.log.read_text())
        assert "keys" in gate.route(timeout=0.0)["problem"]
        gate.write_keys(KEYS)  # which come after what names them
        assert gate.route() == {"problem": "", "open": 0, "restart_needed": False}
        assert ask(gate, body=BODY, headers={}).status == 401
        gate.keys_file.write_text("{")
        wait_until(lambda: "keys: not JSON" in gate.log.read_text())
        assert gate.route(timeout=0.0)["problem"] == "the gate does not use the keys that is there: see logs/gate.log"
        gate.write_keys(KEYS)
        gate.write(port=1)
        assert gate.route() == {"problem": "", "open": 0, "restart_needed": True}
        gate.write(port=0, models={MODEL: "none"})
        assert "gate.json: models" in gate.route(timeout=0.0)["problem"]


def test_a_gate_that_is_not_there_or_not_the_deployments_is_told_of(
    servers: tuple[StandIn, StandIn], tmp_path: Path
) -> None:
    gate = Deployed(tmp_path, {MODEL: [servers[0].url]})
    gate.home.record()
    assert "refused" in gate.route(timeout=0.0)["problem"]
    assert gate.route(timeout=0.0, add={"other": []})["problem"] == "gate.json: it has no model other"
    with gate:
        gate.home.record()
        assert "is held by a process that is not of this deployment" in gate.route(timeout=0.0)["problem"]
    gate.config_file.unlink()
    assert "No such file" in gate.route(timeout=0.0)["problem"]


def test_the_internal_key_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    home = Home(tmp_path, "qwen")
    (home.state / "secrets/internal-key").write_text("a" * 64)
    assert home.hear("internal_key", of="gate") == [{"key": "a" * 64}]
