"""A server is drained when it has shown no request for a while."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.component.remote.living import Home
from tests.component.remote.stand_in import reply, stand_in

IDLE = reply("vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0\n")
BUSY = reply("vllm:num_requests_running 2.0\nvllm:num_requests_waiting 1.0\n")


def free_port() -> int:
    with socket.socket() as taking:
        taking.bind(("127.0.0.1", 0))
        return int(taking.getsockname()[1])


def drain(home: Home, *urls: str, timeout: float = 30.0) -> dict[str, Any]:
    """Drain servers that the host's own record has."""
    home.record(instances=[{"driver": home.host, "local_url": url} for url in urls])
    (left,) = home.hear("drain", urls=urls, timeout=timeout)
    return left


def test_a_server_without_requests_is_drained(home: Home, tmp_path: Path) -> None:
    with stand_in(tmp_path, f"{home.deployment}/r1", replies={"/metrics": IDLE}) as server:
        began = time.monotonic()
        assert drain(home, server.url) == {"idle": True, "requests": 0, "why": ""}
        assert time.monotonic() - began >= 1.0, "what is on its way from the router may come yet"
        assert len(server.heard) > 2


@pytest.mark.parametrize(
    ("metrics", "left"),
    [
        (BUSY, (3, "")),
        (reply("process_start_time_seconds 1\n"), (0, "/metrics does not count requests")),
    ],
    ids=["it has work", "it tells nothing"],
)
def test_a_server_that_is_not_idle_in_time_is_told_of(
    home: Home, tmp_path: Path, metrics: str, left: tuple[int, str]
) -> None:
    with stand_in(tmp_path, f"{home.deployment}/r1", replies={"/metrics": metrics}) as server:
        drained = drain(home, server.url, timeout=0.5)
        why = left[1] and f"{server.url}{left[1]}"
        assert drained == {"idle": False, "requests": left[0], "why": why}


def test_a_server_that_is_gone_has_no_requests_and_somebody_elses_is_none(home: Home, tmp_path: Path) -> None:
    assert drain(home, f"http://127.0.0.1:{free_port()}")["idle"]
    with stand_in(tmp_path, replies={"/metrics": IDLE}) as stranger:
        drained = drain(home, stranger.url, timeout=0.1)
        assert not drained["idle"]
        assert "is held by a process that is not of this deployment" in drained["why"]
        assert stranger.heard == []


def test_nothing_is_asked_where_the_hosts_own_record_has_no_server(home: Home, tmp_path: Path) -> None:
    """The head's record names it, and the head may lie."""
    with stand_in(tmp_path, f"{home.deployment}/r1", replies={"/metrics": IDLE}) as server:
        home.record(instances=[{"driver": "another", "local_url": server.url}, {"driver": home.host, "local_url": ""}])
        for url in (server.url, f"{server.url}/sleep?x=", "http://192.0.2.1:80", ""):
            (refused,) = home.hear("drain", urls=[url], timeout=1.0)
            assert f"no server of {home.deployment} here" in refused["error"]
        assert server.heard == []
