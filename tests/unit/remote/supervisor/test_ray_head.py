"""The head of a Ray cluster, as a worker's supervisor sees it."""

from __future__ import annotations

import os
import socket

from flagscale_deploy.remote.supervisor.ray_head import LOOK_SECONDS, RayHead, session_of

ADDRESS = "127.9.8.6"
"""No connection of anybody else's has a port of it."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_head_is_away_while_nothing_takes_connections_and_the_time_begins_anew_each_time() -> None:
    clock = Clock()
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        head = RayHead("gpu01", f"{ADDRESS}:{port}", clock)
        clock.now += 100
        assert (head.missing(), head.excuses_end) == ("", False)
    for seconds in (0, 41):
        clock.now += seconds
        text = f"waiting for gpu01 (Ray's head at {ADDRESS}:{port}, away for {seconds // 5 * 5} s)"
        assert (head.missing(), head.excuses_end) == (text, True)
    with socket.create_server((ADDRESS, port)):
        assert head.missing() == ""
    clock.now += 7
    assert "away for 0 s" in head.missing()


def test_a_head_that_was_away_excuses_the_end_of_a_worker_until_it_has_joined_again() -> None:
    clock = Clock()
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        head = RayHead("gpu01", f"{ADDRESS}:{port}", clock)
    clock.now += LOOK_SECONDS
    head.look()
    with socket.create_server((ADDRESS, port)):
        clock.now += LOOK_SECONDS
        head.look()
        assert head.excuses_end
        head.is_another(os.getpid())
        assert not head.excuses_end


def test_the_head_may_have_an_ipv6_address() -> None:
    """Nothing listens there; a host without IPv6 says the same."""
    assert RayHead("gpu01", "[::1]:1").missing() == "waiting for gpu01 (Ray's head at [::1]:1, away for 0 s)"


def test_a_process_that_names_no_session_or_is_gone_has_none() -> None:
    assert session_of(os.getpid()) == b""
    assert session_of(1 << 30) == b""
