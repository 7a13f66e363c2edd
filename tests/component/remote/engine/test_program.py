"""Where a program answers, whether it has joined Ray, and how it ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import ray_temp
from flagscale_deploy.remote.engine import openai, program
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.programs import inspect, watch
from tests.component.remote.living import SLEEP, Household
from tests.component.remote.stand_in import HEALTHY, reply, stand_in


@contextmanager
def serving(folder: Path, deployment: str, anything: str, **more: Any) -> Iterator[tuple[Client, str]]:
    """Provide a server of the deployment that replies so to everybody, and what asks it."""
    with stand_in(folder, f"{deployment}/r1", anything=anything, **more) as server:
        yield openai.client(deployment, "here", program=True), server.url


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("status", [200, 401, 404])
def test_any_answer_but_an_error_of_the_server_is_serving(tmp_path: Path, deployment: str, status: int) -> None:
    with serving(tmp_path, deployment, reply("", f"{status} -")) as (client, there):
        assert program.answers(client, [nobody(), there]) == (there, "")


def test_a_server_that_is_not_well_yet_is_not_serving(tmp_path: Path, deployment: str) -> None:
    with serving(tmp_path, deployment, reply("", "503 -")) as (client, there):
        assert program.answers(client, [there]) == (None, f"{there}/health answers 503")


def test_what_speaks_no_http_serves_when_it_accepts(tmp_path: Path, deployment: str) -> None:
    with serving(tmp_path, deployment, "", greeting="220 ready\r\n") as (client, there):
        assert program.answers(client, [there]) == (there, "")


def test_nobody_there_is_said(deployment: str) -> None:
    where = nobody()
    url, why = program.answers(openai.client(deployment, "here", program=True), [where])
    assert url is None
    assert why.startswith(f"{where}: ")
    assert "refused" in why


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployment: str) -> Path:
    """Provide the state directory of the deployment on the host `here`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    state = tmp_path / ".flagscale-deploy" / deployment / "here"
    (state / "app").mkdir(parents=True)
    return state


def test_how_it_ended(home: Path, deployment: str) -> None:
    assert program.exit_status(deployment, "here") is None
    (home / "app/exit").write_text("7\n")
    assert program.exit_status(deployment, "here") == 7


@pytest.mark.parametrize(
    ("noted", "addresses", "expected"),
    [
        ("0", [], {"finished": True}),
        ("0", ["http://a"], {"dead": True, "exit_status": 0}),
        ("3", [], {"dead": True, "exit_status": 3}),
        (None, [], {"dead": True, "exit_status": None}),
    ],
)
def test_only_one_that_has_no_port_may_end(
    home: Path, deployment: str, noted: str | None, addresses: list[str], expected: dict[str, Any]
) -> None:
    if noted is not None:
        (home / "app/exit").write_text(noted)
    assert watch.how_it_ended({"deployment": deployment, "host": "here"}, {"addresses": addresses}) == expected


def test_it_has_joined_when_ray_has_opened_the_log_of_a_driver_of_its_session(
    deployment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: Household
) -> None:
    monkeypatch.setattr(ray_temp, "directories", lambda *_: [str(tmp_path)])
    logs = tmp_path / "session_2026/logs"
    logs.mkdir(parents=True)
    driver = people.python(SLEEP)[0]
    (logs / f"python-core-driver-0a1b_{os.getpid()}.log").touch()
    assert not program.joined(deployment, "here", driver)
    (logs / f"python-core-driver-0a1b_{driver}.log").touch()
    assert program.joined(deployment, "here", driver)


@pytest.mark.usefixtures("home")
def test_what_status_hears_of_it(home: Path, tmp_path: Path, deployment: str) -> None:
    def look(alive: bool, **addresses: str) -> dict[str, Any]:
        """Return what is noted of a program beside whether it lives."""
        server: Any = {"alive": alive}
        instance: Any = {"addresses": addresses}
        inspect.look_at_program(server, instance, {"deployment": deployment, "host": "here"})
        del server["alive"]
        return dict(server)

    assert look(True) == {"token": True, "why": ""}
    assert look(False) == {"why": "its process is gone"}
    with serving(tmp_path, deployment, HEALTHY) as (_, there):
        answers = look(True, **{there: "http://public"})
    assert answers == {"token": True, "at": there, "why": ""}
    (home / "app/exit").write_text("3")
    assert look(False) == {"why": "it ended with exit status 3"}
    (home / "app/exit").write_text("0")
    assert look(False) == {"finished": True, "why": ""}
