"""Where a program answers, whether it has joined Ray, and how it ended."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import ray_temp
from flagscale_deploy.remote.engine import program
from flagscale_deploy.remote.programs import inspect, watch
from tests.component.remote.living import SLEEP, Household


@contextmanager
def web(status: int) -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def talks(words: bytes) -> Iterator[str]:
    """Provide a server that says something that is no HTTP and hangs up, to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                visitor, _ = server.accept()
                with visitor:
                    visitor.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        socket.create_connection(server.getsockname()).close()
        thread.join()


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("status", [200, 401, 404])
def test_any_answer_but_an_error_of_the_server_is_serving(status: int) -> None:
    with web(status) as there:
        assert program.answers([nobody(), there], None) == (there, "")


def test_a_server_that_is_not_well_yet_is_not_serving() -> None:
    with web(503) as there:
        assert program.answers([there], None) == (None, f"{there}/health answers 503")


def test_what_speaks_no_http_serves_when_it_accepts() -> None:
    with talks(b"220 ready\r\n") as there:
        assert program.answers([there], None) == (there, "")


def test_nobody_there_is_said() -> None:
    where = nobody()
    url, why = program.answers([where], None)
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
def test_what_status_hears_of_it(home: Path, deployment: str) -> None:
    def look(alive: bool, **addresses: str) -> dict[str, Any]:
        """Return what is noted of a program beside whether it lives."""
        server: Any = {"alive": alive}
        instance: Any = {"addresses": addresses}
        inspect.look_at_program(server, instance, {"deployment": deployment, "host": "here"})
        del server["alive"]
        return dict(server)

    assert look(True) == {"token": True, "why": ""}
    assert look(False) == {"why": "its process is gone"}
    with web(200) as there:
        answers = look(True, **{there: "http://public"})
    assert answers == {"token": True, "at": there, "why": ""}
    (home / "app/exit").write_text("3")
    assert look(False) == {"why": "it ended with exit status 3"}
    (home / "app/exit").write_text("0")
    assert look(False) == {"finished": True, "why": ""}
