"""A name of which a name server gives many addresses, none of which answers, ends no later for it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.site import Site
from flagscale_deploy.transport import login
from flagscale_deploy.transport.ssh_settings import Settings

NAME, ADDRESSES = "many.example", [f"127.9.0.{number}" for number in range(1, 41)]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give NAME addresses whose kernel drops all attempts: nobody accepts, and the queue is full."""
    with contextlib.ExitStack() as stack:
        port = 0
        for address in ADDRESSES:
            listener = stack.enter_context(socket.socket())
            listener.bind((address, port))
            listener.listen(0)
            port = listener.getsockname()[1]
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((address, port))
        entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ADDRESSES]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
        yield port


def test_a_request_for_a_recipe_ends_in_its_time(port: int) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match="is not reached: timed out"):
        Site(NAME, port, seconds=1.0).get("models.json")
    assert time.monotonic() - began < 20, "a second for each address would be 40"


def test_a_login_tries_addresses_for_a_few_times_its_timeout(port: int) -> None:
    settings = Settings(NAME, NAME, "alice", port)
    tried: list[str] = []
    with pytest.raises(TimeoutError):
        login._tcp(settings, 0.3, tried.append)
    assert 2 <= len(tried) <= login.PATIENCE + 1
