"""What a router is asked for is seen to be so before it counts, by the deployment's own router alone."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.component.remote.living import Home, Household, wait_until
from tests.component.remote.stand_in import HEALTHY, reply, stand_in

ROUTER = Path(__file__).parents[3] / "lab/product/router_stand_in.py"


def free_port() -> int:
    with socket.socket() as taking:
        taking.bind(("127.0.0.1", 0))
        return int(taking.getsockname()[1])


def route(home: Home, router: str, timeout: float = 30.0, **wish: list[str]) -> dict[str, Any]:
    """Ask a router that the host's own record has."""
    home.record(routers=[{"driver": home.host, "local_url": router}])
    (answer,) = home.hear("route", router=router, timeout=timeout, **{"remove": [], "add": [], **wish})
    return answer


def test_a_router_has_a_server_no_more_and_then_again(people: Household, home: Home, tmp_path: Path) -> None:
    marker, answers = f"{home.deployment}/r1", {"/health": HEALTHY, "/v1/completions": reply({"choices": []})}
    with stand_in(tmp_path, marker, replies=answers) as first, stand_in(tmp_path, marker, replies=answers) as second:
        port = free_port()
        urls = [first.url, second.url]
        people.start([sys.executable, str(ROUTER), "--worker-urls", *urls, f"--port={port}"], marker, expect=0)
        router = f"http://127.0.0.1:{port}"
        wait_until(lambda: listens(port))
        for _ in range(2):
            assert route(home, router, remove=[first.url]) == {"workers": [second.url], "problem": ""}
        before = len(first.heard)
        for _ in range(4):
            assert ask(f"{router}/v1/completions") == {"choices": []}
        assert len(first.heard) == before
        for _ in range(2):
            added = route(home, router, add=[first.url])
            assert (set(added["workers"]), added["problem"]) == ({first.url, second.url}, "")
        for _ in range(4):
            ask(f"{router}/v1/completions")
        assert len(first.heard) > before


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def ask(url: str) -> Any:
    with urlopen(Request(url, b"{}", {"Content-Type": "application/json"}), timeout=20) as answer:
        return json.load(answer)


def test_a_router_that_is_just_started_again_is_waited_for(people: Household, home: Home) -> None:
    home.record()
    port, marker = free_port(), f"{home.deployment}/r1"
    router, url = f"http://127.0.0.1:{port}", "http://10.0.0.9:1"
    assert "refused" in route(home, router, timeout=0.0, remove=[url])["problem"]
    command = f"sleep 1; exec {sys.executable} {ROUTER} --worker-urls {url} --port={port}"
    people.start(["bash", "-c", command], marker, expect=0)
    assert route(home, router, remove=[url]) == {"workers": [], "problem": ""}


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (reply({"urls": ["http://10.0.0.9:1"]}), "remove_worker of http://10.0.0.9:1 has no effect"),
        (reply({"urls": "none"}), "/list_workers: urls: expected list"),
        (reply({}), "/list_workers: it has no urls"),
        (reply("gone", "404 Not Found"), "/list_workers answers 404: gone"),
    ],
    ids=["nothing happens", "another shape", "nothing of it", "another server"],
)
def test_a_router_that_does_not_do_it_is_told_of(home: Home, tmp_path: Path, listed: str, problem: str) -> None:
    answers = {"/list_workers": listed}
    with stand_in(tmp_path, f"{home.deployment}/r1", replies=answers, anything=reply("done")) as router:
        answer = route(home, router.url, timeout=0.3, remove=["http://10.0.0.9:1"])
        assert problem in answer["problem"]


def test_somebody_elses_router_hears_nothing(home: Home, tmp_path: Path) -> None:
    with stand_in(tmp_path, replies={"/list_workers": reply({"urls": []})}) as stranger:
        answer = route(home, stranger.url, timeout=0.3, add=["http://10.0.0.9:1"])
        assert "is held by a process that is not of this deployment" in answer["problem"]
        assert stranger.heard == []


def test_nothing_is_asked_where_the_hosts_own_record_has_no_router(home: Home, tmp_path: Path) -> None:
    """The head's record names it, and the head may lie."""
    with stand_in(tmp_path, f"{home.deployment}/r1", anything=reply({"urls": []})) as server:
        home.record(routers=[{"driver": "another", "local_url": server.url}])
        for router in (server.url, f"{server.url}/sleep?x=", "http://192.0.2.1:80"):
            (refused,) = home.hear("route", router=router, timeout=1.0, remove=[], add=["http://10.0.0.9:1"])
            assert f"no router of {home.deployment} here" in refused["error"]
        assert server.heard == []
